package bench

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/syscalls"
)

// callSizes are the numbers of namespaces of which calls are measured. Of one
// alone the client and the server are in the same.
var callSizes = []int{1, 1000, 10000}

// callLane is a lane with cgroups of its own, so that the syscall tier is there
// in some lanes and not in others.
type callLane struct {
	*lane
	dir            string // cgroup to which the programs are attached
	server, client string // cgroups
}

// openCallLanes makes the lanes: no rules, those for packets, and both tiers.
func openCallLanes(b *testing.B) (calls []*callLane, lanes []*lane) {
	b.Helper()
	haveCgroups(b, callSizes[len(callSizes)-1])
	add := func(rules string, n int) *callLane {
		l := &callLane{lane: openLane(b, rules, n), dir: fmt.Sprintf("%s/%s-%d", basePath(), rules, n)}
		l.server, l.client = l.dir+"/server", l.dir+"/client"
		for _, dir := range []string{l.dir, l.server, l.client} {
			if err := os.Mkdir(cgroups.tree.Dir(dir), 0o755); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := errors.Join(enterCgroup("/"), os.Remove(cgroups.tree.Dir(dir))); err != nil {
					b.Error(err)
				}
			})
		}
		calls, lanes = append(calls, l), append(lanes, l.lane)
		return l
	}
	add("none", 0)
	for _, rules := range []string{"packets", "both"} {
		for _, n := range callSizes {
			add(rules, n).enforce(b)
		}
	}
	return calls, lanes
}

// enforce puts a policy in force in the lane, whose last two namespaces are
// those that call.
func (l *callLane) enforce(b *testing.B) {
	b.Helper()
	n := l.namespaces
	member := func(i int) string {
		switch n - i {
		case 1:
			if n == 1 {
				return l.dir
			}
			return l.client
		case 2:
			return l.server
		}
		return memberPath(i)
	}
	plan, err := openHost(b).Plan(parsePolicy(b, policyOf(n, n, l.path, member)))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range plan.Program.Devices {
		if d.Table != nil {
			l.load(b, d.Table)
		}
	}
	if l.rules != "both" {
		return
	}
	if !plan.Calls.Support.OK() {
		b.Fatal(plan.Calls.Support.Why)
	}
	cookie := plan.Calls.Program.Netns[0]
	support := plan.Calls.Support
	tier, err := syscalls.Install(cookie, cgroups.tree.Dir(l.dir), &support)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		tier.Close()
		if err := syscalls.Remove(cookie); err != nil {
			b.Error(err)
		}
	})
	ns, err := os.Open(l.path)
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	if err := errors.Join(tier.Steer([]syscalls.Netns{{Cookie: cookie, FD: int(ns.Fd())}}), tier.Swap(plan.Calls.Program)); err != nil {
		b.Fatal(err)
	}
}

// callers has the process in the client's cgroup of a lane for a piece of work.
func callers(calls []*callLane, work func(i, count int, took func(time.Duration)) error) func(int, int, func(time.Duration)) error {
	return func(i, count int, took func(time.Duration)) error {
		if err := enterCgroup(calls[i].client); err != nil {
			return err
		}
		return work(i, count, took)
	}
}

const together = 64 // calls that are timed as one

// fresh makes sockets, has something done with each of them, in the time that
// is told, and closes them.
func fresh(typ int, took func(time.Duration), do func(s, i int) error) error {
	var sockets [together]int
	for i := range sockets {
		s, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		sockets[i] = s
	}
	began := time.Now()
	for i, s := range sockets {
		if err := do(s, i); err != nil {
			return err
		}
	}
	took(time.Since(began) / together)
	return nil
}

// BenchmarkCallBind binds TCP sockets to loopback, a port each.
func BenchmarkCallBind(b *testing.B) {
	calls, lanes := openCallLanes(b)
	race(b, lanes, 10, callers(calls, func(_, count int, took func(time.Duration)) error {
		to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		for range count {
			err := fresh(unix.SOCK_STREAM, took, func(s, i int) error {
				to.Port = servicePort + 1 + i
				return unix.Bind(s, to)
			})
			if err != nil {
				return fmt.Errorf("bind: %w", err)
			}
		}
		return nil
	}))
}

// BenchmarkCallConnect makes TCP connections as BenchmarkConnect does.
func BenchmarkCallConnect(b *testing.B) {
	calls, lanes := openCallLanes(b)
	listeners := make([]int, len(lanes))
	for i, l := range calls {
		inCgroup(b, l.server, lanes[i:i+1], func(int) (err error) {
			listeners[i], err = listener(b)
			return err
		})
	}
	race(b, lanes, 100, callers(calls, func(i, count int, took func(time.Duration)) error {
		return connectOften(listeners[i], count, took)
	}))
}

// BenchmarkCallConnectUDP connects UDP sockets to one that the other namespace has.
func BenchmarkCallConnectUDP(b *testing.B) {
	calls, lanes := openCallLanes(b)
	to := &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}
	for i, l := range calls {
		inCgroup(b, l.server, lanes[i:i+1], func(int) error {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			b.Cleanup(func() { unix.Close(s) })
			return unix.Bind(s, to)
		})
	}
	race(b, lanes, 10, callers(calls, func(_, count int, took func(time.Duration)) error {
		for range count {
			if err := fresh(unix.SOCK_DGRAM, took, func(s, _ int) error { return unix.Connect(s, to) }); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		}
		return nil
	}))
}
