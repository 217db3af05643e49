package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nft"
)

// refusedPort is one that no rule of the policies allows.
const refusedPort = servicePort + 1

// flooded is where a flood of datagrams is refused, by nftables: from a socket
// that nobody claims to one of a socket namespace.
type flooded struct {
	lanes   []*lane // of them one whose refusals nobody is told of, and one with a controller
	sockets []int
	*process
}

// The kinds of rules.
const (
	inSilence = "refuse-in-silence"
	andTell   = "refuse-and-tell"
)

func openFlooded(b *testing.B) *flooded {
	b.Helper()
	const n = 10
	haveCgroups(b, n)
	f := &flooded{lanes: []*lane{openLane(b, inSilence, n), openLane(b, andTell, n)}}
	policy := func(l *lane) string {
		path := strings.Replace(l.path, "self", fmt.Sprint(os.Getpid()), 1)
		return policyOf(n, n, path, memberPath)
	}
	prog, err := openHost(b).Compile(parsePolicy(b, policy(f.lanes[0])))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range prog.Devices {
		if d.Table != nil {
			silence(d.Table)
			d.Table.Comment = "" // the controller removes tables of its instance that no policy has
			f.lanes[0].load(b, d.Table)
		}
	}
	f.process = startController(b, policy(f.lanes[1]), packetsAlone...)
	to := &unix.SockaddrInet4{Port: refusedPort, Addr: [4]byte{127, 0, 0, 1}}
	socket := func() (int, error) {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			b.Cleanup(func() { unix.Close(s) })
		}
		return s, err
	}
	inCgroup(b, memberPath(0), f.lanes, func(int) error {
		s, err := socket()
		if err != nil {
			return err
		}
		return unix.Bind(s, to)
	})
	f.sockets = make([]int, len(f.lanes))
	for i, l := range f.lanes {
		l.do(b, func() (err error) { f.sockets[i], err = socket(); return err })
	}
	return f
}

// silence leaves of what refuses in a table only that.
func silence(t *nft.Table) {
	for i := range t.Chains {
		c := &t.Chains[i]
		if !strings.HasPrefix(c.Name, "refuse.") {
			continue
		}
		var rules []nft.Rule
		for _, r := range c.Rules {
			switch r.Statements[len(r.Statements)-1].(type) {
			case nft.Reject, nft.VMap: // the connecting end may refuse first
				rules = append(rules, r)
			}
		}
		c.Rules = rules
	}
}

// send sends datagrams from a lane, and tells how long each took of bursts.
func (f *flooded) send(lane, bursts int, took func(time.Duration)) error {
	to, data := &unix.SockaddrInet4{Port: refusedPort, Addr: [4]byte{127, 0, 0, 1}}, []byte("a datagram")
	const burst = 100
	for range bursts {
		began := time.Now()
		for range burst {
			if err := unix.Sendto(f.sockets[lane], data, 0, to); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
		took(time.Since(began) / burst)
	}
	return nil
}

// BenchmarkFlood sends datagrams that are refused, where that is told and where
// it is not.
func BenchmarkFlood(b *testing.B) {
	f := openFlooded(b)
	race(b, f.lanes, 200, f.send)
}

// heard counts what a controller tells of decisions.
type heard struct{ one, counted atomic.Uint64 }

func (h *heard) told() uint64 { return h.one.Load() + h.counted.Load() }

// hear listens to a controller until the benchmark ends.
func hear(b *testing.B, p *process) *heard {
	h := &heard{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := api.NewClient(p.dir).Events(ctx, []events.Kind{events.Decision}, nil, func(e events.Event) error {
			h.one.Add(e.Decided.Count)
			h.counted.Add(e.Decided.Unreported)
			return nil
		}); ctx.Err() == nil {
			b.Error("nothing is heard any more:", err)
		}
	}()
	b.Cleanup(func() { cancel(); <-ended })
	return h
}

// whole has a number of decisions made, and measures what that is to the
// controller. Each has to be told, alone or in a number.
func (h *heard) whole(b *testing.B, p *process, all uint64, decide func(n int)) {
	b.Helper()
	for h.told() == 0 { // until somebody listens
		decide(100)
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(5 * time.Second) // what was not listened to is told by now
	h.one.Store(0)
	h.counted.Store(0)
	before, cpu := memory(b, p.Process.Pid, "VmRSS"), cpuTime(b, p.Process.Pid)
	decide(int(all))
	for end := time.Now().Add(time.Minute); h.told() < all && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(5 * time.Second)
	if n := h.told(); n != all {
		b.Fatalf("%d of %d are told", n, all)
	}
	b.ReportMetric(float64(h.one.Load()), "one-by-one")
	b.ReportMetric(float64(h.counted.Load()), "as-numbers")
	b.ReportMetric(cpuTime(b, p.Process.Pid)-cpu, "controller-ms")
	b.ReportMetric(memory(b, p.Process.Pid, "VmHWM")-before, "grown-MiB")
}

// BenchmarkFloodWhole sends a million datagrams that are refused.
func BenchmarkFloodWhole(b *testing.B) {
	f := openFlooded(b)
	h := hear(b, f.process)
	for b.Loop() {
		h.whole(b, f.process, 1_000_000, func(n int) {
			f.lanes[1].do(b, func() error { return f.send(1, n/100, func(time.Duration) {}) })
		})
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFloodCalls calls connect(2) a million times in vain, refused by the
// syscall tier. Then it compares what a call takes with the controller, and while
// that is stopped, so that nobody reads what the programs report.
func BenchmarkFloodCalls(b *testing.B) {
	const n = 10
	haveCgroups(b, n)
	p := startController(b, policyText(n, n))
	h := hear(b, p)
	if err := enterCgroup(memberPath(0)); err != nil {
		b.Fatal(err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err := errors.Join(err, enterCgroup("/")); err != nil {
		b.Fatal(err)
	}
	defer unix.Close(s)
	to := &unix.SockaddrInet4{Port: refusedPort, Addr: [4]byte{127, 0, 0, 1}}
	decide := func(n int) {
		for range n {
			if err := unix.Connect(s, to); err != unix.ECONNREFUSED {
				b.Fatal("connect: ", err)
			}
		}
	}
	for b.Loop() {
		h.whole(b, p, 1_000_000, decide)
		const burst = 1000
		var took [2][]float64
		for range 100 {
			for i, signal := range []unix.Signal{unix.SIGCONT, unix.SIGSTOP} {
				if err := p.Process.Signal(signal); err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				decide(burst)
				took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/burst)
			}
		}
		if err := p.Process.Signal(unix.SIGCONT); err != nil {
			b.Fatal(err)
		}
		for i, unit := range []string{"told-ns", "silent-ns"} {
			slices.Sort(took[i])
			b.ReportMetric(took[i][len(took[i])/2], unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// cpuTime returns what a process has used, in milliseconds (proc(5), stat).
func cpuTime(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	var user, system float64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		b.Fatal(err)
	}
	return (user + system) * 10 // USER_HZ is 100
}
