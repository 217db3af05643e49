package bench

import (
	"context"
	"fmt"
	"os"
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

// BenchmarkFloodWhole sends a million of them, and measures what that is to the
// controller. Each has to be told, alone or in a number.
func BenchmarkFloodWhole(b *testing.B) {
	f := openFlooded(b)
	const all = 1_000_000
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var one, counted atomic.Uint64
	listening := make(chan error, 1)
	go func() {
		listening <- api.NewClient(f.dir).Events(ctx, []events.Kind{events.Decision}, nil, func(e events.Event) error {
			one.Add(e.Decided.Count)
			counted.Add(e.Decided.Unreported)
			return nil
		})
	}()
	told := func() uint64 { return one.Load() + counted.Load() }
	for b.Loop() {
		sent := uint64(0)
		for ; told() == 0; sent += 100 { // until somebody listens
			f.lanes[1].do(b, func() error { return f.send(1, 1, func(time.Duration) {}) })
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second) // what was not listened to is told by now
		one.Store(0)
		counted.Store(0)
		before, cpu := memory(b, f.Process.Pid, "VmRSS"), cpuTime(b, f.Process.Pid)
		f.lanes[1].do(b, func() error { return f.send(1, all/100, func(time.Duration) {}) })
		for end := time.Now().Add(time.Minute); told() < all && time.Now().Before(end); {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		if n := told(); n != all {
			b.Fatalf("%d of %d are told", n, all)
		}
		b.ReportMetric(float64(one.Load()), "one-by-one")
		b.ReportMetric(float64(counted.Load()), "as-numbers")
		b.ReportMetric(cpuTime(b, f.Process.Pid)-cpu, "controller-ms")
		b.ReportMetric(memory(b, f.Process.Pid, "VmHWM")-before, "grown-MiB")
	}
	b.ReportMetric(0, "ns/op")
	select {
	case err := <-listening:
		b.Fatal(err)
	default:
	}
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
