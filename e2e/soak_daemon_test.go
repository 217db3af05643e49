package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

// daemon is a controller that is started again and again.
type daemon struct {
	*world
	program string
	client  *api.Client

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // of cmd

	heard sync.Mutex // start waits while it hears
	said  map[events.Kind]int
	lines []string
}

func newDaemon(w *world, race bool) *daemon {
	d := &daemon{world: w, program: w.bin + "/sockns", client: api.NewClient(w.tmp + "/run"), said: make(map[events.Kind]int)}
	if race {
		d.program = w.tmp + "/sockns"
		cmd := exec.Command("go", "build", "-race", "-o", d.program, "./cmd/sockns")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			w.Fatalf("%v: %s", err, out)
		}
	}
	return d
}

// start starts it unless it runs, and reports whether the policy is in force
// then. It ends at once while the files are broken.
func (d *daemon) start() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		select {
		case <-d.exited:
		default:
			return true
		}
	}
	cmd := exec.Command("nsenter", "--net=/run/netns/"+d.netns(d.first), d.program, "run", "-f", d.policy, "--log-format", "json")
	cmd.Env = append(os.Environ(), "SOCKNS_RUNTIME_DIR="+d.tmp+"/run")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StderrPipe()
	if err != nil {
		d.Error(err)
		return false
	}
	if err := cmd.Start(); err != nil {
		d.Error(err)
		return false
	}
	started, exited := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(exited)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for once := sync.OnceFunc(func() { close(started) }); lines.Scan(); {
			if d.hear(lines.Text()) == events.Started {
				once()
			}
		}
		_ = cmd.Wait()
	}()
	d.cmd, d.exited = cmd, exited
	select {
	case <-started:
		return true
	case <-exited:
		return false
	case <-time.After(time.Minute):
		d.Error("the controller did not start within a minute")
		return false
	}
}

// hear takes a line of the log.
func (d *daemon) hear(line string) events.Kind {
	d.heard.Lock()
	defer d.heard.Unlock()
	d.lines = append(d.lines, line)
	if len(d.lines) > 2000 {
		d.lines = slices.Delete(d.lines, 0, 1000)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(line, bad) {
			d.Errorf("the controller says: %s", line)
		}
	}
	var said struct {
		Kind events.Kind `json:"msg"`
	}
	_ = json.Unmarshal([]byte(line), &said) // a line that is none counts for nothing
	d.said[said.Kind]++
	if said.Kind == events.ResyncFound {
		d.Errorf("only the safety resync noticed: %s", line)
	}
	return said.Kind
}

func (d *daemon) lastLines(n int) string {
	d.heard.Lock()
	defer d.heard.Unlock()
	return strings.Join(d.lines[max(0, len(d.lines)-n):], "\n")
}

func (d *daemon) String() string {
	d.heard.Lock()
	defer d.heard.Unlock()
	return fmt.Sprintf("%d starts, %d edits loaded, %d broken, %d repairs, %d failures", d.said[events.Started],
		d.said[events.PolicyLoaded], d.said[events.PolicyBroken], d.said[events.DriftRepaired], d.said[events.Failed])
}

func (d *daemon) signal(s unix.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(s) // it may have ended
	}
}

// stop ends it, and waits.
func (d *daemon) stop(s unix.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(s)
	select {
	case <-d.exited:
	case <-time.After(time.Minute):
		d.Error("the controller did not end within a minute")
		_ = d.cmd.Process.Kill()
	}
	d.cmd = nil
}

func (d *daemon) state() (*controller.State, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return d.client.State(ctx)
}

// lookedSince waits until a controller has compared everything in a look that
// began after now, or until there is nothing to find (equal), or the end.
func (d *daemon) lookedSince(end <-chan struct{}, equal func() bool) {
	var first *controller.State
	for i := 0; ; i++ {
		select {
		case <-end:
			return
		case <-time.After(2 * time.Millisecond):
		}
		if state, err := d.state(); err == nil { // it answers between two looks
			if first == nil {
				first = state
			} else if state.PID != first.PID || state.Reconciles > first.Reconciles {
				return
			}
		}
		if i%50 == 49 && equal() {
			return
		}
	}
}

// look finds out which policies are in force, until the end.
func (s *soak) look() {
	for {
		select {
		case <-s.ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
		if state, err := s.daemon.state(); err == nil && state.Failing == nil && state.Policy.Broken == nil {
			s.ledger.confirm(func(p *model.Policy) bool { return len(p.SocketNamespaces) == state.Policy.Namespaces })
		}
	}
}

// observer compares the kernel with policies, in a thread of the first netns.
type observer struct{ asks chan func(*controller.Host) }

func observe(t *testing.T, netns string) *observer {
	o := &observer{asks: make(chan func(*controller.Host))}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + netns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		var h *controller.Host
		if err == nil {
			h, err = controller.OpenHost()
		}
		failed <- err
		if err != nil {
			return
		}
		defer h.Close()
		for ask := range o.asks {
			ask(h)
		}
		failed <- nil
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(o.asks); <-failed })
	return o
}

// differs returns how the kernel differs from a policy; "" if it does not.
func (o *observer) differs(p *model.Policy) string {
	answer := make(chan string)
	o.asks <- func(h *controller.Host) {
		plan, err := h.Plan(p)
		if err != nil {
			answer <- err.Error()
			return
		}
		var b strings.Builder
		for _, d := range plan.Devices {
			if !d.Change.Empty() {
				fmt.Fprintf(&b, "%s: %s\n", d.Name, d.Change.String())
			}
		}
		if plan.Calls.Change {
			b.WriteString("the syscall tier\n")
		}
		answer <- b.String()
	}
	return <-answer
}

// equals reports whether the kernel is as one of the policies says.
func (o *observer) equals(policies []*model.Policy) bool {
	return slices.ContainsFunc(policies, func(p *model.Policy) bool { return o.differs(p) == "" })
}
