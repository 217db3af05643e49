package syscalls

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/e2e/roottest"
)

// hammering is set in the environment of the processes that make system calls.
const hammering = "SOCKNS_HAMMER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(hammering); dir != "" {
		if err := hammer(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// What two policies say to the same calls. Everything else that a call could
// return is of a decision that took a part of one and a part of the other:
// each number of a policy means something else in the other one.
var (
	hammerTo   = netip.MustParseAddrPort("127.0.0.1:2001") // srv listens
	hammerBind = netip.MustParseAddrPort("127.0.0.1:3001")
	whole      = map[string][2]unix.Errno{
		"connect": {unix.EACCES, unix.EHOSTUNREACH}, // by app's rule; by srv's
		"bind":    {unix.EPERM, unix.EADDRINUSE},
	}
)

// hammerProgram returns the first or the second policy. What it says stands behind
// some lists that nobody is to ask.
func hammerProgram(second bool, behind int, cookie, app, srv uint64) *Program {
	p := &Program{Netns: []uint64{cookie}}
	list := func(entries ...Entry) Span {
		s := Span{uint32(len(p.Entries)), uint32(len(entries))}
		p.Entries = append(p.Entries, entries...)
		return s
	}
	deny := func(port uint16, errno unix.Errno) Entry {
		return Entry{Kind: Verdict, Protocols: AllProtocols, Here: HerePort, PortFirst: port, PortLast: port, Action: Deny, Error: uint16(errno), Rule: 1}
	}
	end := Entry{Kind: Default, Protocols: AllProtocols, Action: Allow}
	bind, connect, accept := unix.EPERM, unix.EACCES, unix.Errno(0)
	for range behind {
		wrong := list(deny(2001, unix.ENETUNREACH), deny(3001, unix.EADDRNOTAVAIL), end)
		p.Policies = append(p.Policies, Policy{Bind: wrong, Connect: wrong, Accept: wrong, Flags: OwnsAll})
	}
	if second {
		bind, connect, accept = unix.EADDRINUSE, 0, unix.EHOSTUNREACH
		// What the first policy has here is elsewhere in this one.
		for range 3 {
			list(deny(2001, unix.ENETUNREACH), end)
		}
		wrong := list(deny(2001, unix.ENETUNREACH), deny(3001, unix.EADDRNOTAVAIL), end)
		p.Policies = append(p.Policies, Policy{Bind: wrong, Connect: wrong, Accept: wrong, Flags: OwnsAll})
	}
	rule := func(n uint16, errno unix.Errno) Span {
		if errno == 0 {
			return list(end)
		}
		return list(deny(n, errno), end)
	}
	at := uint32(len(p.Policies))
	p.Policies = append(p.Policies,
		Policy{Bind: rule(3001, bind), Connect: rule(2001, connect), Accept: list(end), Flags: OwnsAll},
		Policy{Bind: list(end), Connect: list(end), Accept: rule(2001, accept), Flags: OwnsAll})
	if !second {
		wrong := list(deny(2001, unix.ETIMEDOUT), deny(3001, unix.EADDRNOTAVAIL), end)
		p.Policies = append(p.Policies, Policy{Bind: wrong, Connect: wrong, Accept: wrong, Flags: OwnsAll})
	}
	p.Members = []Member{
		{Cgroup: app, Netns: cookie, Policy: at, Identity: at + 1, Source: 1},
		{Cgroup: srv, Netns: cookie, Policy: at + 1, Identity: at + 2, Source: 2},
	}
	return p
}

// TestFlipIsAtomic makes calls without pause while two policies take turns, by
// flips of the word in force, by swaps that write what the other slot lacks, and
// by swaps that find it settled. SOCKNS_FLIPS says how many flips; one swap is
// made for each thousand of them, at least ten.
func TestFlipIsAtomic(t *testing.T) {
	roottest.Need(t)
	flips := 1000
	if s := os.Getenv("SOCKNS_FLIPS"); s != "" {
		var err error
		if flips, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	tier, cookie, base, ids := install(t)
	// Six, so that no slot holds what it gets next.
	var programs []*Program
	for i := range 6 {
		programs = append(programs, hammerProgram(i%2 == 1, i%3, cookie, ids["app"], ids["srv"]))
	}
	listener := startHammer(t, filepath.Join(base, "srv"))
	defer listener.stop(t)
	for range 2 { // each gets its slot
		for _, p := range programs[:2] {
			if err := tier.Swap(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	// No subtests: they would run on other threads.
	for _, kind := range []struct {
		name  string
		times int
		turn  func(i int) error
	}{
		{"flips", flips, func(int) error {
			now, err := tier.state()
			if err != nil {
				return err
			}
			time.Sleep(50 * time.Microsecond)
			return tier.maps["active"].Put(uint32(0), state{Slot: 1 - now.Slot})
		}},
		{"swaps", max(10, flips/1000), func(i int) error { return tier.Swap(programs[i%6]) }},
		{"swaps of settled slots", max(10, flips/1000), func(i int) error {
			err := tier.Swap(programs[i%6])
			tier.Settle(programs[i%6])
			return err
		}},
	} {
		var all []*hammered
		for range max(2, runtime.NumCPU()) {
			all = append(all, startHammer(t, filepath.Join(base, "app")))
		}
		began := time.Now()
		for i := range kind.times {
			if err := kind.turn(i); err != nil {
				t.Fatal(err)
			}
		}
		took := time.Since(began)
		counts := make(map[string]int)
		for _, h := range all {
			for what, n := range h.stop(t) {
				counts[what] += n
			}
		}
		for call, errnos := range whole {
			for _, e := range errnos {
				what := call + " " + unix.ErrnoName(e)
				if counts[what] == 0 {
					t.Errorf("%s: %s: never", kind.name, what)
				}
				t.Logf("%s: %s: %d", kind.name, what, counts[what])
				delete(counts, what)
			}
		}
		if len(counts) > 0 {
			t.Errorf("%s: neither policy says that: %v", kind.name, counts)
		}
		t.Logf("%d %s in %v", kind.times, kind.name, took.Round(time.Millisecond))
	}
}

// install has the programs of an instance run in a network namespace of the test's
// own, at a cgroup with two below: app and srv, of which it returns the ids.
func install(t *testing.T) (tier *Tier, cookie uint64, base string, ids map[string]uint64) {
	t.Helper()
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	base = tree.Dir(fmt.Sprintf("/sockns-atomic-%d", os.Getpid()))
	ids = make(map[string]uint64)
	for _, name := range []string{"app", "srv"} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if ids[name], err = tree.ID(filepath.Join("/", filepath.Base(base), name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, dir := range []string{"app", "srv", ""} {
			if err := os.Remove(filepath.Join(base, dir)); err != nil {
				t.Error(err)
			}
		}
	})
	runtime.LockOSThread() // and never unlocks: the network namespace goes with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cookie = netnsCookie(t)
	support := Probe()
	defer support.Close()
	if !support.OK() {
		t.Fatal(support.Why)
	}
	tier, err = Install(cookie, base, &support)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tier.Close()
		if err := Remove(cookie); err != nil {
			t.Error(err)
		}
	})
	return tier, cookie, base, ids
}

func netnsCookie(t *testing.T) uint64 {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	cookie, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

// hammered is a process that makes calls until it is told to stop.
type hammered struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

// startHammer starts one in a cgroup and in the thread's network namespace. In
// a cgroup named srv it listens and does nothing else.
func startHammer(t *testing.T, dir string) *hammered {
	t.Helper()
	h := &hammered{cmd: exec.Command("/proc/self/exe")}
	h.cmd.Env = append(os.Environ(), hammering+"="+dir)
	h.cmd.Stderr = os.Stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := h.cmd.StdinPipe()
	out, err2 := h.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, h.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	h.in, h.out = in, bufio.NewReader(out)
	if _, err := h.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return h
}

// stop returns how often each call returned what.
func (h *hammered) stop(t *testing.T) map[string]int {
	t.Helper()
	h.in.Close()
	counts := make(map[string]int)
	err := json.NewDecoder(h.out).Decode(&counts)
	if err := errors.Join(err, h.cmd.Wait()); err != nil {
		t.Error(err)
	}
	return counts
}

// hammer is such a process.
func hammer(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	counts := make(map[string]int)
	stop := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(stop) }()
	if filepath.Base(dir) == "srv" {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err := errors.Join(err, unix.Bind(s, sockaddr(hammerTo)), unix.Listen(s, 1)); err != nil {
			return err
		}
		fmt.Println("ready")
		<-stop
	} else {
		fmt.Println("ready")
		for stopped := false; !stopped; {
			for range 100 {
				if err := hammerOnce(counts); err != nil {
					return err
				}
			}
			select {
			case <-stop:
				stopped = true
			default:
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(maps.Clone(counts))
}

func hammerOnce(counts map[string]int) error {
	for _, call := range []string{"connect", "bind"} {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if call == "bind" {
			err = unix.Bind(s, sockaddr(hammerBind))
		} else {
			err = unix.Connect(s, sockaddr(hammerTo))
		}
		unix.Close(s)
		name := "ok"
		var errno unix.Errno
		if errors.As(err, &errno) {
			name = unix.ErrnoName(errno)
		}
		counts[call+" "+name]++
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}
