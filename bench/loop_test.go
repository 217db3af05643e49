package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nft"
)

// loopSizes are the numbers of socket namespaces that the loop is measured with.
var loopSizes = []int{10, 1000, 10000}

// loop is a controller that runs in a benchmark, and the times at which it
// tells of an event, by kind.
type loop struct {
	file string
	told map[events.Kind]chan time.Time
}

// runLoop starts a controller in this process and waits until it enforces a
// policy, whose first file is the one that is edited.
func runLoop(b *testing.B, policy string, more ...string) *loop {
	b.Helper()
	host := openHost(b)
	dir := b.TempDir()
	l := &loop{file: filepath.Join(dir, "p.yaml"), told: make(map[events.Kind]chan time.Time)}
	for _, k := range []events.Kind{events.Started, events.MemberJoined, events.MemberLeft, events.Changed, events.DriftRepaired, events.DeviceWent, events.Reconciled} {
		l.told[k] = make(chan time.Time, 1<<16)
	}
	l.write(b, policy)
	for i, text := range more {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("p%03d.yaml", i)), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	r := controller.NewReconciler(host, controller.Options{
		Paths: []string{dir}, RuntimeDir: b.TempDir(),
		Tell: func(e events.Event) {
			if c := l.told[e.Kind]; c != nil {
				c <- e.Time
			} else if e.Kind == events.Failed {
				b.Error(e)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		remove(b, host)
	})
	l.wait(b, events.Started)
	return l
}

func (l *loop) write(b *testing.B, policy string) {
	b.Helper()
	if err := errors.Join(os.WriteFile(l.file+".new", []byte(policy), 0o600), os.Rename(l.file+".new", l.file)); err != nil {
		b.Fatal(err)
	}
}

// wait returns when the next event of a kind happened, the last of those that
// are told of already.
func (l *loop) wait(b *testing.B, k events.Kind) time.Time {
	b.Helper()
	select {
	case at := <-l.told[k]:
		return at
	case <-time.After(time.Minute):
		b.Fatalf("no event %s within a minute", k)
		return time.Time{}
	}
}

// percentiles reports the median and the 99th percentile, in microseconds.
func percentiles(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	at := func(p int) float64 { return float64(all[len(all)*p/100].Nanoseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-us")
	b.ReportMetric(at(99), "p99-us")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBirth removes and makes members' cgroups, as services that restart
// do, and measures from the moment before mkdir(2) until both tiers know the new
// one.
func BenchmarkBirth(b *testing.B) { each(b, loopSizes, births) }

// BenchmarkBirthAwake is BenchmarkBirth while processes that yield to all others keep
// the processors from sleeping: to wake one takes tens of microseconds in a virtual machine.
func BenchmarkBirthAwake(b *testing.B) {
	for range runtime.NumCPU() {
		busy := exec.Command("nice", "-n", "19", "sh", "-c", "while :; do :; done")
		busy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := busy.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	}
	each(b, loopSizes, births)
}

func births(b *testing.B, n, different int) {
	tree := haveCgroups(b, n)
	l := runLoop(b, policyText(n, different))
	var took []time.Duration
	i := 0
	for b.Loop() {
		dir := tree.Dir(memberPath(i % n))
		i += 7 // not always the same one
		if err := os.Remove(dir); err != nil {
			b.Fatal(err)
		}
		l.wait(b, events.MemberLeft)
		began := time.Now()
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		took = append(took, l.wait(b, events.MemberJoined).Sub(began))
	}
	percentiles(b, took)
}

// BenchmarkFlush has nft(8) flush the ruleset, and measures from its end until
// everything is repaired.
func BenchmarkFlush(b *testing.B) {
	each(b, loopSizes, func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		l := runLoop(b, policyText(n, different))
		var took []time.Duration
		for b.Loop() {
			if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			began := time.Now()
			took = append(took, l.wait(b, events.DriftRepaired).Sub(began))
		}
		percentiles(b, took)
	})
}

// BenchmarkDevice makes a network namespace that the policy names, and measures
// from the end of `ip netns add` until packets are decided there, and until its
// policy is in force for calls too.
func BenchmarkDevice(b *testing.B) {
	name := fmt.Sprintf("snbench%d", os.Getpid())
	each(b, []int{10, 1000}, func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		l := runLoop(b, policyOf(n, different, "/run/netns/"+name, memberPath))
		var took, closed []time.Duration
		for b.Loop() {
			if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			began := time.Now()
			closed = append(closed, tableComes(b, "/run/netns/"+name).Sub(began))
			took = append(took, l.wait(b, events.Changed).Sub(began))
			if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			went := l.wait(b, events.DeviceWent)
			for !l.wait(b, events.Reconciled).After(went) {
			}
		}
		percentiles(b, took)
		slices.Sort(closed)
		b.ReportMetric(float64(closed[len(closed)/2].Nanoseconds())/1000, "packets-p50-us")
	})
}

// tableComes waits for the table of a network namespace to be complete: its last
// commit hooks the base chains.
func tableComes(b *testing.B, path string) time.Time {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	conn, err := nft.Open(int(f.Fd()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for range 100_000 {
		chains, _, err := conn.Chains(compiler.TableName, []string{"input"})
		if err == nil && len(chains) == 1 && len(chains[0].Rules) > 0 {
			return time.Now()
		}
		time.Sleep(200 * time.Microsecond)
	}
	b.Fatal("no table")
	return time.Time{}
}

// BenchmarkEdit replaces the policy file, as editors do, with one that differs
// in one rule, and measures until it is committed.
func BenchmarkEdit(b *testing.B) {
	each(b, loopSizes, func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		edit(b, policyText(n, different))
	})
}

// BenchmarkEditFile is BenchmarkEdit for a policy of a hundred files, one of which
// is replaced.
func BenchmarkEditFile(b *testing.B) {
	each(b, loopSizes[1:], func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		files := policyFiles(n, different, 100)
		edit(b, files[0], files[1:]...)
	})
}

func edit(b *testing.B, policy string, more ...string) {
	edited := strings.Replace(policy, "ports: 53,", "ports: 54,", 1)
	l := runLoop(b, policy, more...)
	var took []time.Duration
	for b.Loop() {
		policy, edited = edited, policy
		time.Sleep(betweenEdits)
		for len(l.told[events.Changed]) > 0 {
			<-l.told[events.Changed]
		}
		began := time.Now()
		l.write(b, policy)
		took = append(took, l.wait(b, events.Changed).Sub(began))
	}
	percentiles(b, took)
}

// betweenEdits is how long somebody takes at least to save a file again; what
// follows sooner is a burst that the controller waits out.
const betweenEdits = 200 * time.Millisecond

// BenchmarkMemory measures what a controller, in a process of its own, has in
// memory when it enforces a policy, and the most that it had.
func BenchmarkMemory(b *testing.B) {
	each(b, loopSizes, func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		text := policyText(n, different)
		var now, most float64
		for b.Loop() {
			c := startController(b, text)
			time.Sleep(3 * time.Second) // the runtime gives back what it does not use
			now, most = memory(b, c.Process.Pid, "VmRSS"), memory(b, c.Process.Pid, "VmHWM")
			c.stop()
		}
		b.ReportMetric(now, "MiB")
		b.ReportMetric(most, "most-MiB")
		b.ReportMetric(0, "ns/op")
	})
}

// process is a controller in a process of its own.
type process struct {
	*exec.Cmd
	dir string // where its socket is
}

// packetsAlone are the first words of a command that is to have no bpffs, and
// so no syscall tier.
var packetsAlone = []string{"unshare", "--mount", "sh", "-c", `umount /sys/fs/bpf 2>/dev/null; exec "$@"`, "sh"}

// startController starts a controller, in the words of wrap, and waits until it
// enforces a policy.
func startController(b *testing.B, policy string, wrap ...string) *process {
	b.Helper()
	dir := b.TempDir()
	program, file := filepath.Join(dir, "sockns"), filepath.Join(dir, "p.yaml")
	build := exec.Command("go", "build", "-o", program, "github.com/sockns/sockns/cmd/sockns")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		b.Fatal(err)
	}
	words := append(wrap, program, "run", "-f", file)
	p := &process{exec.Command(words[0], words[1:]...), dir}
	p.Env = append(os.Environ(), "SOCKNS_RUNTIME_DIR="+dir, "INVOCATION_ID=bench")
	said, err := p.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	host := openHost(b)
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.stop(); remove(b, host) })
	lines := bufio.NewScanner(said)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && !strings.Contains(lines.Text(), `"`+string(events.Started)+`"`) {
	}
	go func() {
		for lines.Scan() {
		}
	}()
	return p
}

// stop ends the controller, which leaves its policy enforced.
func (p *process) stop() {
	_ = p.Process.Signal(unix.SIGTERM)
	_ = p.Wait()
}

// memory reads a field of /proc/PID/status, in MiB.
func memory(b *testing.B, pid int, field string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatalf("no %s in the status of pid %d", field, pid)
	return 0
}
