package controller

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/watch"
)

// running is a reconciler that runs in a test.
type running struct {
	*Reconciler
	t      *testing.T
	file   string
	events *events.Subscription
	stop   func() error // and wait
}

// runReconciler starts one for a policy and waits until it is enforced.
func runReconciler(t *testing.T, h *Host, policy string) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "p.yaml")
	hub := &events.Hub{}
	r := &running{t: t, file: file, events: hub.Subscribe(4096)}
	r.write(policy)
	r.Reconciler = NewReconciler(h, Options{Paths: []string{file}, Tell: hub.Publish})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.home.Do(func() error { return r.Run(ctx) }) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	r.wait(events.Started)
	return r
}

func (r *running) write(policy string) {
	r.t.Helper()
	temporary := r.file + ".new"
	if err := os.WriteFile(temporary, []byte(policy), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(temporary, r.file); err != nil {
		r.t.Fatal(err)
	}
}

// wait returns the next event of a kind.
func (r *running) wait(kind events.Kind) events.Event {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var seen []string
	for {
		e, err := r.events.Next(ctx)
		if err != nil {
			r.t.Fatalf("no event %s, but:\n%s", kind, strings.Join(seen, "\n"))
		}
		if e.Kind == kind {
			return e
		}
		seen = append(seen, e.String())
	}
}

func (r *running) state() *State {
	r.t.Helper()
	s, err := r.State(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func port(base string, n int) string {
	return fmt.Sprintf(`apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: %[1]s/web}, {cgroup: %[1]s/later}]
    connect: [{protocol: tcp, ports: %[2]d}]
`, base, n)
}

func TestReconcilerTellsWhatItDoes(t *testing.T) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		r := runReconciler(t, h, port(base, 1001))
		defer r.stop()
		s := r.state()
		if len(s.Devices) != 1 || !s.Devices[0].Present || s.Devices[0].Members["web"] != 1 ||
			len(s.Devices[0].Missing) != 1 || s.Devices[0].Missing[0] != (Missing{"web", "cgroup " + base + "/later"}) {
			t.Errorf("state: %+v", s)
		}

		// A member comes and goes.
		dir := h.Cgroups.Dir(base + "/later")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if e := r.wait(events.MemberJoined); e.Namespace != "web" || e.Cgroup != base+"/later" || e.Device != "host" {
			t.Errorf("joined: %+v", e)
		}
		if s := r.state(); s.Devices[0].Members["web"] != 2 || s.Devices[0].Missing != nil {
			t.Errorf("state: %+v", s)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		r.wait(events.MemberLeft)

		// An edit.
		r.write(port(base, 1002))
		if e := r.wait(events.Changed); len(e.Steps) != 2 || e.Steps[1] != (compiler.Step{Op: compiler.Add, Namespace: "web", Text: "may connect any tcp/1002"}) {
			t.Errorf("changed: %+v", e.Steps)
		}
		r.wait(events.PolicyLoaded)
		r.wait(events.Reconciled)

		// A broken edit, twice; the file that is read says so until it is mended.
		r.write("apiVersion: sockns/v1\nsocketNamspaces: {}\n")
		if e := r.wait(events.PolicyBroken); len(e.Problems) == 0 || e.Problems[0].Line != 2 || e.Problems[0].File != r.file {
			t.Errorf("broken: %+v", e)
		}
		since := r.state().Policy.Broken.Since
		if broken, err := r.Reload(context.Background()); err != nil || broken == nil || len(broken.Problems) == 0 {
			t.Errorf("reload of a broken policy: %+v, %v", broken, err)
		}
		if s := r.state(); s.Policy.Broken == nil || !s.Policy.Broken.Since.Equal(since) {
			t.Errorf("state of a broken policy: %+v", s.Policy)
		}

		// Somebody else, meanwhile.
		nft := exec.Command("nft", "flush", "ruleset")
		if out, err := nft.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		e := r.wait(events.DriftRepaired)
		if len(e.By) == 0 || e.By[0].Process != "nft" || int(e.By[0].PID) != nft.Process.Pid || !strings.Contains(e.String(), "delete table") ||
			!strings.Contains(e.String(), "+ web may connect any tcp/1002") {
			t.Errorf("drift: %s", e)
		}
		if s := r.state(); s.Drift != 1 || s.LastDrift == nil || s.Policy.Broken == nil {
			t.Errorf("state after drift: %+v", s)
		}

		r.write(port(base, 1002))
		r.wait(events.PolicyLoaded)
		r.wait(events.Reconciled)
		if s := r.state(); s.Policy.Broken != nil || s.ResyncFound != 0 || s.Failing != nil {
			t.Errorf("mended: %+v", s)
		}
		if broken, err := r.Reload(context.Background()); err != nil || broken != nil {
			t.Errorf("reload: %+v, %v", broken, err)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		r.wait(events.Stopping)
		if _, err := r.State(context.Background()); err != ErrEnded {
			t.Errorf("state after the end: %v", err)
		}
	})
}

// A policy that is right, but not on this host, leaves the last good one in
// force, drift repaired, until it can be enforced.
func TestPolicyThatCanNotBeEnforcedHere(t *testing.T) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		r := runReconciler(t, h, port(base, 1001))
		defer r.stop()
		twice := strings.Replace(port(base, 1002), "socketNamespaces:",
			fmt.Sprintf("deviceNamespaces: {again: {path: /proc/%d/task/%d/ns/net}}\nsocketNamespaces:", os.Getpid(), unix.Gettid()), 1)
		r.write(twice)
		if e := r.wait(events.PolicyBroken); !strings.Contains(e.Error, "same network namespace") {
			t.Errorf("broken: %s", e)
		}
		r.wait(events.Failed)
		if s := r.state(); s.Policy.Broken == nil {
			t.Errorf("state: %+v", s.Policy)
		}
		if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if e := r.wait(events.DriftRepaired); !strings.Contains(e.String(), "tcp/1001") {
			t.Errorf("drift: %s", e)
		}
		r.write(port(base, 1003))
		for !strings.Contains(r.wait(events.Changed).String(), "tcp/1003") {
		}
		r.wait(events.PolicyLoaded)
		if s := r.state(); s.Policy.Broken != nil {
			t.Errorf("state: %+v", s.Policy)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// startAlone starts a reconciler without its loop: the test says what it hears.
// stop ends it.
func startAlone(t *testing.T, h *Host, policy string) (r *running, stop func()) {
	t.Helper()
	hub := &events.Hub{}
	r = &running{t: t, file: filepath.Join(t.TempDir(), "p.yaml"), events: hub.Subscribe(4096)}
	r.write(policy)
	r.Reconciler = NewReconciler(h, Options{Paths: []string{r.file}, Tell: hub.Publish})
	var err error
	if r.cgroups, err = watch.OpenCgroups(h.Cgroups, nil); err != nil {
		t.Fatal(err)
	}
	r.witness = newWitness(r.tell)
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	return r, func() {
		r.witness.close()
		r.cgroups.Close()
		r.closeMonitors()
		close(r.ended)
	}
}

func flush(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A difference that nobody announces is found by the safety resync, which says
// that it is a bug; one that is gone at the second look is none.
func TestSafetyResync(t *testing.T) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		r, stop := startAlone(t, h, port(base, 1001))
		defer stop()
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for i, mended := range []bool{false, true} {
			flush(t)
			check(r.safetyLook())
			if mended {
				check(r.sync(cause{why: "announced in time"}))
			}
			check(r.sync(cause{why: "second look", safety: true}))
			if got := r.Reconciler.state().ResyncFound; got != 1 {
				t.Errorf("flush %d: found %d", i+1, got)
			}
		}
		if e := r.wait(events.ResyncFound); !strings.Contains(e.String(), "tcp/1001") {
			t.Errorf("found: %s", e)
		}
	})
}

// Notifications that were lost, of nftables or of cgroups, lead to a look at
// everything, which finds what they would have told.
func TestLostNotifications(t *testing.T) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		r, stop := startAlone(t, h, port(base, 1001))
		defer stop()
		r.closeMonitors() // nobody hears who it was
		clear(r.monitors)
		flush(t)
		if err := r.foreignChanged(foreignChange{device: model.HostDevice, lost: true}); err != nil {
			t.Fatal(err)
		}
		r.wait(events.Changed) // at the start
		if e := r.wait(events.Changed); !strings.Contains(e.String(), "tcp/1001") || !strings.Contains(e.Message, "lost") {
			t.Errorf("after lost notifications of nftables: %s", e)
		}
		if err := os.Mkdir(h.Cgroups.Dir(base+"/later"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := r.cgroupsChanged(watch.Event{Kind: watch.Lost}); err != nil {
			t.Fatal(err)
		}
		if s := r.Reconciler.state(); s.Devices[0].Members["web"] != 2 || s.ResyncFound != 0 {
			t.Errorf("after lost notifications of cgroups: %+v", s)
		}
		r.equal(h)
	})
}
