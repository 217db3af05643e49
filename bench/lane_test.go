package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/nft"
)

// lane is a network namespace with some rules in it, and a thread that makes
// sockets there. The cost of a packet is compared between lanes.
type lane struct {
	rules      string // what kind
	namespaces int    // that they are for; 0: none
	by         string // what lanes differ by instead, as "prefixes=10"
	slow       int    // how many times less is done in it, for rules that take long
	work       chan func() error
	done       chan error
	path       string // of the network namespace
}

// name is the lane's part of the name of a benchmark.
func (l *lane) name() string {
	if l.by != "" {
		return fmt.Sprintf("rules=%s/%s", l.rules, l.by)
	}
	return fmt.Sprintf("rules=%s/namespaces=%d", l.rules, l.namespaces)
}

// openLane makes a network namespace whose lo is up.
func openLane(b *testing.B, rules string, namespaces int) *lane {
	b.Helper()
	l := &lane{rules: rules, namespaces: namespaces, slow: 1, work: make(chan func() error), done: make(chan error)}
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends in another namespace
		for do := range l.work {
			l.done <- do()
		}
	}()
	b.Cleanup(func() { close(l.work) })
	var ns *os.File
	l.do(b, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return loopbackUp()
	})
	b.Cleanup(func() { ns.Close() })
	l.path = fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
	return l
}

// do runs something on the lane's thread.
func (l *lane) do(b *testing.B, work func() error) {
	b.Helper()
	l.work <- work
	if err := <-l.done; err != nil {
		b.Fatalf("%s: %v", l.name(), err)
	}
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// load puts a table in the lane: the packets' rules alone, without the syscall
// tier, which is one for all lanes.
func (l *lane) load(b *testing.B, table *nft.Table) {
	b.Helper()
	var conn *nft.Conn
	l.do(b, func() (err error) {
		conn, err = nft.Open(-1)
		return err
	})
	b.Cleanup(func() { conn.Close() })
	if err := conn.Apply(nft.Diff(nil, table)); err != nil {
		b.Fatal(err)
	}
}

// loadText has nft(8) put a ruleset in the lane.
func (l *lane) loadText(b *testing.B, text string) {
	b.Helper()
	l.do(b, func() error { return nftText(text) })
}

// nftText has nft(8) carry out a text in the calling thread's network namespace.
func nftText(text string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %.300s", err, out)
	}
	return nil
}

// openLanes makes the lanes: nothing at all, base chains without a rule, rules
// that people write by hand, and policies.
func openLanes(b *testing.B) []*lane {
	b.Helper()
	most := slices.Max(sizes)
	haveCgroups(b, most)
	lanes := []*lane{openLane(b, "none", 0)}
	text := func(rules string, n, slow int, text string) {
		l := openLane(b, rules, n)
		l.slow = slow
		l.loadText(b, text)
		lanes = append(lanes, l)
	}
	text("empty", 0, 1, emptyRules)
	text("conntrack", 0, 1, conntrackRules)
	for _, n := range sizes {
		lanes = append(lanes, policyLane(b, n))
	}
	for _, n := range sizes {
		text("map-by-hand", n, 1, mapRules(n))
	}
	for _, n := range sizes {
		if n > 1000 { // more take minutes to load
			continue
		}
		l := openLane(b, "firewalld", n)
		if _, err := startFirewalld(b, l, n); err != nil {
			b.Logf("without %s: %v", l.name(), err)
			break
		}
		lanes = append(lanes, l)
	}
	for _, n := range sizes {
		if n <= 1000 { // ten thousand take minutes to load and milliseconds a packet
			text("linear-by-hand", n, 1+n/20, linearRules(n))
		}
	}
	return lanes
}

// policyLane makes a lane with the tables of a policy.
func policyLane(b *testing.B, n int) *lane {
	b.Helper()
	l := openLane(b, "sockns", n)
	host := openHost(b)
	prog, err := host.Compile(parsePolicy(b, policyOf(n, n, l.path, func(i int) string { return lastMembers(n, i) })))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range prog.Devices {
		if d.Table != nil {
			l.load(b, d.Table)
		}
	}
	return l
}

// lastMembers returns the cgroup of namespace i of n: the namespaces with
// traffic are the last two, of each lane, and their cgroups the same ones.
func lastMembers(n, i int) string { return memberPath(slices.Max(sizes) - n + i) }

// The members of the namespaces that answer and ask.
func serverMember() string { return memberPath(slices.Max(sizes) - 2) }
func clientMember() string { return memberPath(slices.Max(sizes) - 1) }

// raceRounds is how many turns each lane has.
const raceRounds = 60

// race has all lanes do the same in turns, so that what else the machine does
// hits all of them, and reports how long a piece of work takes in each lane: the
// median and the 99th percentile. Work does count pieces, and tells the time of
// each, or the middle one of several.
func race(b *testing.B, lanes []*lane, count int, work func(lane, count int, took func(time.Duration)) error) {
	b.Helper()
	raceFree(b, lanes, count, func(i, count int, took func(time.Duration)) (err error) {
		lanes[i].do(b, func() error { return work(i, count, took) })
		return nil
	})
}

// raceFree is race for work that is not bound to the lane's thread.
func raceFree(b *testing.B, lanes []*lane, count int, work func(lane, count int, took func(time.Duration)) error) {
	b.Helper()
	report(b, lanes, turns(b, lanes, count, work))
}

// timesOf is race for who reports something else of the times, which are sorted.
func timesOf(b *testing.B, lanes []*lane, count int, work func(lane, count int, took func(time.Duration)) error) [][]float64 {
	b.Helper()
	return turns(b, lanes, count, func(i, count int, took func(time.Duration)) (err error) {
		lanes[i].do(b, func() error { return work(i, count, took) })
		return nil
	})
}

// reportTimes reports the times of a kind of work from one cgroup to another.
func reportTimes(b *testing.B, lanes []*lane, work func(b *testing.B, lanes []*lane, server, client string) [][]float64, server, client string) {
	b.Helper()
	report(b, lanes, work(b, lanes, server, client))
}

// turns has each lane work in its turn, and returns the times in order.
func turns(b *testing.B, lanes []*lane, count int, work func(lane, count int, took func(time.Duration)) error) [][]float64 {
	b.Helper()
	times := make([][]float64, len(lanes))
	for round := range raceRounds + 1 {
		for i, l := range lanes {
			if round == 1 {
				times[i] = times[i][:0] // the first warmed up
			}
			took := func(d time.Duration) { times[i] = append(times[i], float64(d.Nanoseconds())) }
			if err := work(i, max(count/l.slow, 1), took); err != nil {
				b.Fatalf("%s: %v", l.name(), err)
			}
		}
	}
	for _, t := range times {
		slices.Sort(t)
	}
	return times
}

func report(b *testing.B, lanes []*lane, times [][]float64) {
	b.Helper()
	for i, l := range lanes {
		b.Run(l.name(), func(b *testing.B) {
			for b.Loop() {
			}
			b.ReportMetric(0, "ns/op") // says nothing: the work is done
			b.ReportMetric(times[i][len(times[i])/2], "p50-ns")
			b.ReportMetric(times[i][len(times[i])*99/100], "p99-ns")
		})
	}
}

// inCgroup runs something for each lane on its thread, with the process in a cgroup.
func inCgroup(b *testing.B, path string, lanes []*lane, work func(lane int) error) {
	b.Helper()
	if err := enterCgroup(path); err != nil {
		b.Fatal(err)
	}
	for i, l := range lanes {
		l.do(b, func() error { return work(i) })
	}
	if err := enterCgroup("/"); err != nil {
		b.Fatal(err)
	}
}
