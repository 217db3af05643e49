package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
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
	server, client string // cgroups below it, as the next
	other          string // that listens on the server's port too
}

// openCallLane makes a lane with its cgroups.
func openCallLane(b *testing.B, rules string, namespaces, prefixes int) *callLane {
	b.Helper()
	l := &callLane{lane: openLane(b, rules, namespaces)}
	if prefixes > 0 {
		l.by = fmt.Sprintf("prefixes=%d", prefixes)
	}
	l.dir = fmt.Sprintf("%s/%s-%d", basePath(), rules, max(namespaces, prefixes))
	l.server, l.client, l.other = l.dir+"/server", l.dir+"/client", l.dir+"/other"
	for _, dir := range []string{l.dir, l.server, l.client, l.other} {
		if err := os.Mkdir(cgroups.tree.Dir(dir), 0o755); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := errors.Join(enterCgroup("/"), os.Remove(cgroups.tree.Dir(dir))); err != nil {
				b.Error(err)
			}
		})
	}
	return l
}

// openCallLanes makes the lanes: no rules, those for packets, and both tiers.
func openCallLanes(b *testing.B) []*callLane {
	b.Helper()
	haveCgroups(b, callSizes[len(callSizes)-1])
	calls := []*callLane{openCallLane(b, "none", 0, 0)}
	for _, rules := range []string{"packets", "both"} {
		for _, n := range callSizes {
			l := openCallLane(b, rules, n, 0)
			l.enforce(b, policyOf(n, n, l.path, l.member))
			calls = append(calls, l)
		}
	}
	return calls
}

// member returns the cgroup of namespace i of the lane's policy, whose last
// namespaces are those that call and are called.
func (l *callLane) member(i int) string {
	switch l.namespaces - i {
	case 1:
		if l.namespaces == 1 {
			return l.dir
		}
		return l.client
	case 2:
		return l.server
	case 3:
		return l.other
	}
	return memberPath(i)
}

// enforce puts a policy in force in the lane.
func (l *callLane) enforce(b *testing.B, policy string) {
	b.Helper()
	plan, err := openHost(b).Plan(parsePolicy(b, policy))
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

// raceCalls is race, with the process in the client's cgroup of each lane.
func raceCalls(b *testing.B, calls []*callLane, count int, work func(i, count int, took func(time.Duration)) error) {
	b.Helper()
	lanes := make([]*lane, len(calls))
	for i, l := range calls {
		lanes[i] = l.lane
	}
	race(b, lanes, count, func(i, count int, took func(time.Duration)) error {
		if err := enterCgroup(calls[i].client); err != nil {
			return err
		}
		return work(i, count, took)
	})
}

// atServers runs something on each lane's thread in the server's cgroup.
func atServers(b *testing.B, calls []*callLane, work func(i int) error) {
	b.Helper()
	for i, l := range calls {
		inCgroup(b, l.server, []*lane{l.lane}, func(int) error { return work(i) })
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
	raceCalls(b, openCallLanes(b), 10, func(_, count int, took func(time.Duration)) error {
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
	})
}

// BenchmarkCallConnect makes TCP connections as BenchmarkConnect does.
func BenchmarkCallConnect(b *testing.B) {
	calls := openCallLanes(b)
	listeners := make([]int, len(calls))
	atServers(b, calls, func(i int) (err error) {
		listeners[i], err = listener(b)
		return err
	})
	raceCalls(b, calls, 100, func(i, count int, took func(time.Duration)) error {
		return connectOften(listeners[i], count, took)
	})
}

// BenchmarkCallSteered makes the same connections where, with both tiers, a third
// namespace listens on that port too, and gets them: it is first in the policy.
func BenchmarkCallSteered(b *testing.B) {
	calls := openCallLanes(b)
	calls = slices.DeleteFunc(calls, func(l *callLane) bool { return l.namespaces < 3 })
	listeners := make([]int, len(calls))
	atServers(b, calls, func(i int) (err error) {
		listeners[i], err = listener(b)
		return err
	})
	for i, l := range calls {
		if l.rules == "both" {
			inCgroup(b, l.other, []*lane{l.lane}, func(int) (err error) {
				listeners[i], err = listener(b)
				return err
			})
		}
	}
	raceCalls(b, calls, 100, func(i, count int, took func(time.Duration)) error {
		return connectOften(listeners[i], count, took)
	})
}

// connectUDP connects UDP sockets to one that the other namespace has.
func connectUDP(b *testing.B, calls []*callLane) {
	b.Helper()
	to := &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}
	atServers(b, calls, func(int) error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		b.Cleanup(func() { unix.Close(s) })
		return unix.Bind(s, to)
	})
	raceCalls(b, calls, 10, func(_, count int, took func(time.Duration)) error {
		for range count {
			if err := fresh(unix.SOCK_DGRAM, took, func(s, _ int) error { return unix.Connect(s, to) }); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		}
		return nil
	})
}

func BenchmarkCallConnectUDP(b *testing.B) { connectUDP(b, openCallLanes(b)) }

// BenchmarkCallList connects UDP sockets past a list of prefixes, which both ends
// deny: none of them has the address.
func BenchmarkCallList(b *testing.B) {
	haveCgroups(b, 2)
	var calls []*callLane
	for _, rules := range []string{"packets", "both"} {
		for _, n := range []int{10, 1000, 10000} {
			l := openCallLane(b, rules, 2, n)
			l.enforce(b, listPolicyOf(n, n-1, l.path, l.member))
			calls = append(calls, l)
		}
	}
	connectUDP(b, calls)
}
