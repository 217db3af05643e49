package controller

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// TestApplyIsAtomic sends datagrams without pause while two policies are
// applied in turns. What both allow is never refused, and what both refuse
// never arrives. SOCKNS_APPLIES says how many applies of each kind of change.
func TestApplyIsAtomic(t *testing.T) {
	applies := number(t, "SOCKNS_APPLIES", 60)
	base := makeCgroups(t, "app/inner", "twin")
	policy := func(namespaces string) string {
		return "apiVersion: sockns/v1\nsocketNamespaces:\n" + strings.ReplaceAll(namespaces, "$CG", base)
	}
	const allow = "{protocol: udp, ports: 2001}"
	listed := func(addresses string, many ...string) string {
		return "  app: {members: [{cgroup: $CG/app}], connect: [{protocol: udp, ports: 2001, to: listed}]}\n" +
			"groups: {listed: [" + addresses + ", " + strings.Join(many, ", ") + "]}\n"
	}
	var ranges, single []string
	for i := range 300 {
		ranges = append(ranges, fmt.Sprintf("10.%d.%d.0/25", i/256, i%256))
		single = append(single, fmt.Sprintf("192.0.%d.%d", i/100, 2*(i%100)))
	}
	for _, kind := range []struct{ name, a, b string }{
		{
			"a rule",
			"  app: {members: [{cgroup: $CG/app}], connect: [{ports: 3000}, " + allow + "]}\n",
			"  app: {members: [{cgroup: $CG/app}], connect: [" + allow + ", {action: deny, error: EHOSTUNREACH, ports: 3001}]}\n",
		},
		{
			"a shared policy",
			"  app: {members: [{cgroup: $CG/app}], connect: [{ports: 3000}, " + allow + "]}\n  twin: {members: [{cgroup: $CG/twin}], connect: [{ports: 3000}, " + allow + "]}\n",
			"  app: {members: [{cgroup: $CG/app}], connect: [{ports: 3001}, " + allow + "]}\n  twin: {members: [{cgroup: $CG/twin}], connect: [{ports: 3001}, " + allow + "]}\n",
		},
		{
			"a member",
			"  app: {members: [{cgroup: $CG/app}], connect: [" + allow + "]}\n",
			"  app: {members: [{cgroup: $CG/app}, {cgroup: $CG/app/inner}], connect: [" + allow + "]}\n",
		},
		{
			"a long list of ranges",
			listed("127.0.0.0-127.0.0.7", ranges[:200]...),
			listed("127.0.0.1-127.0.9.9", ranges[100:]...),
		},
		{
			"an address of a long list that becomes one of a range",
			listed("127.0.0.1", single[:200]...),
			listed("127.0.0.0/24", append(ranges, single[100:]...)...),
		},
		{
			"a namespace added and removed",
			"  app: {members: [{cgroup: $CG/app}], connect: [" + allow + "]}\n",
			"  app: {members: [{cgroup: $CG/app}], connect: [" + allow + "]}\n  inner: {members: [{cgroup: $CG/app/inner}], connect: [{ports: 3000}, " + allow + "]}\n",
		},
	} {
		t.Run(kind.name, func(t *testing.T) {
			inNetns(t, func(t *testing.T, h *Host) {
				packetsAlone(h)
				up(t)
				policies := []*model.Policy{mustParse(fatal{t}, policy(kind.a)), mustParse(fatal{t}, policy(kind.b))}
				apply(fatal{t}, h, policies[1])
				traffic := startTraffic(t, h, base+"/app", base+"/app/inner")
				for i := range applies {
					plan, err := h.Plan(policies[i%2])
					if err == nil && !plan.Changes() {
						err = errors.New("the plan changes nothing")
					}
					if err == nil {
						err = h.Apply(plan)
					}
					if err != nil {
						t.Errorf("apply %d: %v", i, err)
						break
					}
				}
				traffic.stop()
				t.Logf("%d applies: %d datagrams passed and %d were refused, as they should", applies, traffic.passed.Load(), traffic.refused.Load())
				if n := traffic.wronglyRefused.Load(); n > 0 {
					t.Errorf("%d datagrams were refused that both policies allow", n)
				}
				if n := traffic.leaked.Load(); n > 0 {
					t.Errorf("%d datagrams arrived that both policies refuse", n)
				}
				if traffic.passed.Load() == 0 || traffic.refused.Load() == 0 {
					t.Error("the traffic did not run")
				}
			})
		})
	}
}

// number is what an environment variable says, or the usual.
func number(t *testing.T, variable string, usual int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// packetsAlone keeps the syscall tier out of a test of the packets' rules.
func packetsAlone(h *Host) {
	if h.support != nil {
		h.support.Close()
	}
	h.support = &syscalls.Support{Why: "not wanted in this test"}
}

func up(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// traffic is datagrams over lo from sockets of cgroups: to port 2001, which
// both policies allow, and to 2002, which both refuse.
type traffic struct {
	passed, refused, wronglyRefused, leaked atomic.Int64
	done                                    chan struct{}
	wait                                    sync.WaitGroup
}

func startTraffic(t *testing.T, h *Host, cgroups ...string) *traffic {
	tr := &traffic{done: make(chan struct{})}
	receive := func(port int, count *atomic.Int64) {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			fatal{t}.Fatalf("%v", err)
		}
		tr.wait.Go(func() {
			<-tr.done
			conn.Close()
		})
		go func() {
			buf := make([]byte, 16)
			for {
				if _, _, err := conn.ReadFromUDP(buf); err != nil {
					return
				}
				count.Add(1)
			}
		}()
	}
	receive(2001, &tr.passed)
	receive(2002, &tr.leaked)
	for _, cg := range cgroups {
		for port, refused := range map[int]*atomic.Int64{2001: &tr.wronglyRefused, 2002: &tr.refused} {
			conn := dialIn(t, h, cg, port)
			tr.wait.Go(func() {
				defer conn.Close()
				for {
					select {
					case <-tr.done:
						return
					default:
					}
					// A refusal comes as the error of the next call.
					if _, err := conn.Write([]byte("x")); errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM) {
						refused.Add(1)
					}
					time.Sleep(20 * time.Microsecond)
				}
			})
		}
	}
	return tr
}

func (tr *traffic) stop() {
	time.Sleep(10 * time.Millisecond)
	close(tr.done)
	tr.wait.Wait()
}

// dialIn makes a socket that belongs to a cgroup.
func dialIn(t *testing.T, h *Host, cg string, port int) (conn net.Conn) {
	inCgroup(t, h, cg, func() {
		var err error
		if conn, err = net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
			fatal{t}.Fatalf("%v", err)
		}
	})
	return conn
}

// inCgroup has the process in a cgroup while something is done: a socket keeps
// the cgroup that its maker was in.
func inCgroup(t *testing.T, h *Host, cg string, do func()) {
	home, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		fatal{t}.Fatalf("%v", err)
	}
	move := func(to string) {
		if err := os.WriteFile(filepath.Join(h.Cgroups.Dir(to), "cgroup.procs"), []byte("0"), 0o644); err != nil {
			fatal{t}.Fatalf("%v", err)
		}
	}
	move(cg)
	defer move(cgroupOf(string(home)))
	do()
}

// TestRefusedTransaction has the kernel refuse the change of one device
// namespace of two: nothing may have changed in either.
func TestRefusedTransaction(t *testing.T) {
	base := makeCgroups(t, "a", "b")
	second := otherNetns(t)
	text := func(port int) string {
		return fmt.Sprintf(`apiVersion: sockns/v1
deviceNamespaces: {blue: {path: %s}}
socketNamespaces:
  a: {members: [{cgroup: %s/a}], connect: [{protocol: tcp, ports: %d}]}
  b: {deviceNamespace: blue, members: [{cgroup: %s/b}], connect: [{protocol: tcp, ports: %d}]}
`, second, base, port, base, port)
	}
	inNetns(t, func(t *testing.T, h *Host) {
		packetsAlone(h)
		apply(fatal{t}, h, mustParse(fatal{t}, text(1000)))
		f, err := os.Open(second)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		owner, err := nft.Open(int(f.Fd()))
		if err != nil {
			t.Error(err)
			return
		}
		// The same table, but somebody else's.
		table, err := h.devices["blue"].table()
		if err != nil {
			t.Error(err)
			return
		}
		theirs := *table
		theirs.Flags |= nft.TableOwner
		if err := owner.Apply(nft.Diff(table, nil)); err != nil {
			t.Error(err)
		}
		if err := owner.Apply(nft.Diff(nil, &theirs)); err != nil {
			t.Error(err)
		}
		before := tables(t, h)
		plan, err := h.Plan(mustParse(fatal{t}, text(2000)))
		if err != nil {
			t.Errorf("plan: %v", err)
			return
		}
		if err = h.Apply(plan); err == nil {
			t.Error("the kernel refused nothing")
		} else if !strings.Contains(err.Error(), "device namespace blue") || !errors.Is(err, os.ErrPermission) {
			t.Errorf("the error does not say where: %v", err)
		}
		for name, now := range tables(t, h) {
			if change := nft.Diff(before[name], now); !change.Empty() {
				t.Errorf("device namespace %s: something changed: %s", name, change.String())
			}
		}
		// The owner gone, and the table with it, the same change is made.
		owner.Close()
		apply(fatal{t}, h, mustParse(fatal{t}, text(2000)))
		if change := nft.Diff(before["blue"], tables(t, h)["blue"]); change.Empty() {
			t.Error("nothing changed")
		}
	})
}

// tables returns both device namespaces' tables, read back, without whose they are.
func tables(t *testing.T, h *Host) map[string]*nft.Table {
	both := make(map[string]*nft.Table)
	for _, name := range []string{model.HostDevice, "blue"} {
		table, err := h.devices[name].table()
		if err != nil {
			t.Error(err)
			continue
		}
		table.Flags = 0
		both[name] = table
	}
	return both
}

// otherNetns makes a network namespace that lives as long as the test, and
// returns its path.
func otherNetns(t *testing.T) string {
	roottest.Need(t)
	path, done := make(chan string), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		path <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-done
	}()
	t.Cleanup(func() { close(done) })
	return <-path
}
