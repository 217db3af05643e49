package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sockns/sockns/model"
)

// ledger knows which policies may be in force at a moment, and where somebody
// else has changed nftables so that packets may not be decided by any of them.
type ledger struct {
	mu       sync.Mutex
	versions []*model.Policy // in the order in which they were written
	sure     int             // was in force, entirely: what is in force now is it or a later one
	troubled map[string]*trouble
	windows  []time.Duration // how long troubles lasted while a controller ran
	wrong    []string
	judged   map[string]int // by class of flow: judgements that could have found something
}

// trouble is that of one device namespace.
type trouble struct {
	open  int // how many foreign changes are not known to be repaired
	epoch int // how many there were
}

func newLedger() *ledger {
	return &ledger{troubled: map[string]*trouble{"host": {}, "blue": {}}, judged: make(map[string]int)}
}

// write notes that a policy will be in the files, before it is.
func (l *ledger) write(p *model.Policy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions = append(l.versions, p)
}

// confirm notes that a policy was found in force. matches tells it.
func (l *ledger) confirm(matches func(*model.Policy) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.versions) - 1; i > l.sure; i-- {
		if matches(l.versions[i]) {
			l.sure = i
			return
		}
	}
}

// possible returns the policies that may be in force now.
func (l *ledger) possible() []*model.Policy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.versions[l.sure:])
}

// disturb notes that a device namespace is about to be changed by somebody
// else, until the function that it returns is called.
func (l *ledger) disturb(device string) (over func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.troubled[device]
	t.open++
	t.epoch++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.open--
	})
}

// calm reports whether no trouble is open.
func (l *ledger) calm() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.troubled["host"].open == 0 && l.troubled["blue"].open == 0
}

// took notes how long a trouble lasted, at most.
func (l *ledger) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows = append(l.windows, d)
}

// count returns how many judgements of a class there were.
func (l *ledger) count(class string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.judged[class]
}

// accuse fails the test for what was wrong, the first few times.
func (l *ledger) accuse(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, wrong := range l.wrong[:min(len(l.wrong), 20)] {
		t.Error(wrong)
	}
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.windows)
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(l.judged)) {
		fmt.Fprintf(&b, "%s %d, ", what, l.judged[what])
	}
	if n := len(l.windows); n > 0 {
		fmt.Fprintf(&b, "%d times others changed something, for %v at the median and %v at most", n, l.windows[n/2], l.windows[n-1])
	}
	return b.String()
}

// probe is one attempt to reach a server.
type probe struct {
	class    string // of the flow, for the count
	protocol model.Protocol
	device   string
	from, to []string // the namespaces that the ends may be in while it lasts
	port     int
	// calls says that connect(2) itself is answered, whatever becomes of the
	// tables; lasting that both ends were known before and stay.
	calls, lasting bool

	sure, epoch int
	quiet       bool
}

// begin is called before the attempt.
func (l *ledger) begin(p probe) probe {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.troubled[p.device]
	p.sure, p.epoch, p.quiet = l.sure, t.epoch, t.open == 0
	return p
}

// judge is called after it. Each end has to be decided as a policy decides that
// was in force meanwhile.
func (l *ledger) judge(p probe, outcome string) {
	l.mu.Lock()
	versions := l.versions[p.sure:]
	quiet := p.quiet && l.troubled[p.device].epoch == p.epoch
	l.mu.Unlock()
	connect, accept, all, calls := false, false, true, p.calls
	for _, v := range versions {
		for _, from := range p.from {
			calls = calls && v.Namespace(from) != nil // those of others pass
			for _, to := range p.to {
				d := decide(v, p, from, to)
				connect = connect || !d.Connect.Refuses()
				accept = accept || !d.Accept.Refuses()
				all = all && d.Allowed()
			}
		}
	}
	may := connect && (accept || p.protocol == model.UDP) // sendto(2) does not tell what the receiver thinks of it
	l.mu.Lock()
	defer l.mu.Unlock()
	count := func(s string) { l.judged[p.class+" "+s]++ }
	switch {
	case !may && (quiet || calls):
		if count("refused"); outcome == "ok" {
			l.wrong = append(l.wrong, fmt.Sprintf("%s %s -> %s:%d passed, which %d policies refuse (calm: %v)", p.protocol, p.from, p.to, p.port, len(versions), quiet))
		}
	case all && quiet && p.lasting && p.protocol == model.TCP:
		if count("allowed"); outcome != "ok" {
			l.wrong = append(l.wrong, fmt.Sprintf("%s %s -> %s:%d was refused with %s, which %d policies allow", p.protocol, p.from, p.to, p.port, outcome, len(versions)))
		}
	default:
		count("open")
	}
}

var loopbackAddr = netip.MustParseAddr("127.0.0.1")

func decide(v *model.Policy, p probe, from, to string) model.Decision {
	known := func(name string) string { // a namespace that a policy does not have claims nothing
		if v.Namespace(name) == nil {
			return ""
		}
		return name
	}
	from, to = known(from), known(to)
	return model.Decide(v, model.Flow{
		Protocol: p.protocol,
		From:     model.End{Namespace: from, Device: p.device, Picked: loopbackAddr},
		To:       model.End{Namespace: to, Device: p.device, Address: netip.AddrPortFrom(loopbackAddr, uint16(p.port))},
	})
}
