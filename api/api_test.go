package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/events"
)

// fake is a controller that answers what a test says.
type fake struct {
	mu       sync.Mutex
	state    controller.State
	broken   *controller.Broken
	refusals controller.Refusals
	err      error
	hangs    bool
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) State(ctx context.Context) (*controller.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := f.state
	return &s, f.err
}

func (f *fake) Why(_ context.Context, subject string) (*controller.Why, error) {
	if subject != "user/1000" {
		return nil, controller.ErrUnknown("no socket namespace " + subject)
	}
	return &controller.Why{Namespace: subject, Refusals: []controller.Cause{}}, nil
}

func (f *fake) Refusals(context.Context) (*controller.Refusals, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &f.refusals, f.err
}

func (f *fake) Reload(context.Context) (*controller.Broken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken, f.err
}

// serve runs the API over a socket and returns its client.
func serve(t *testing.T, f *fake) (c *Client, hub *events.Hub, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sockns") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	hub = &events.Hub{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "sockns_up 1\n") })
	go func() {
		ended <- Serve(ctx, l, (&Server{Controller: f, Events: hub, Metrics: metrics}).Handler())
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return NewClient(dir), hub, stop
}

func background(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestState(t *testing.T) {
	want := controller.State{PID: 42, Policy: controller.PolicyState{Paths: []string{"/etc/sockns"}}, Devices: []controller.DeviceState{{Name: "host", Present: true}}}
	f := &fake{state: want}
	c, _, stop := serve(t, f)
	got, err := c.State(background(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
	f.set(func(f *fake) { f.err = controller.ErrEnded })
	if _, err := c.State(background(t)); err == nil || !strings.Contains(err.Error(), controller.ErrEnded.Error()) {
		t.Errorf("ended: %v", err)
	}
	stop()
	if state, err := c.State(background(t)); state != nil || !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody runs: %v, %v", state, err)
	}
}

func TestHealth(t *testing.T) {
	f := &fake{}
	c, _, _ := serve(t, f)
	broken := &controller.Broken{Problems: []events.Problem{{File: "p.yaml", Line: 2, Column: 1, Severity: "error", Message: "no"}}}
	for _, test := range []struct {
		change func(*fake)
		want   Health
	}{
		{func(*fake) {}, Health{Status: "ok"}},
		{func(f *fake) { f.state.Policy.Broken = broken },
			Health{"degraded", []string{"the policy files are broken, the last good policy is in force: p.yaml:2:1: error: no"}}},
		{func(f *fake) { f.state.Failing = &controller.Failing{Error: "EPERM"} }, Health{"failing", []string{"EPERM"}}},
		{func(f *fake) { f.err = controller.ErrEnded }, Health{"failing", []string{"the controller has ended"}}},
		{func(f *fake) { f.err, f.hangs = nil, true }, Health{"failing", []string{"the controller does not answer: it starts, or is busy"}}},
	} {
		f.set(test.change)
		got, err := c.Health(background(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&test.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestWhy(t *testing.T) {
	c, _, _ := serve(t, &fake{})
	if why, err := c.Why(background(t), "user/1000"); err != nil || why.Namespace != "user/1000" {
		t.Errorf("%+v, %v", why, err)
	}
	if _, err := c.Why(background(t), "wob"); err == nil || !strings.Contains(err.Error(), "no socket namespace wob") {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	want := controller.Refusals{
		Since: time.Unix(1, 0).UTC(), Forgotten: 2,
		Refusals: []events.Event{{Kind: events.Decision, Namespace: "web", Decided: &events.Decided{Hook: "connect", Count: 3}}},
	}
	f := &fake{refusals: want}
	c, _, _ := serve(t, f)
	got, err := c.Refusals(background(t))
	if diff := cmp.Diff(&want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	f.set(func(f *fake) { f.err = controller.ErrEnded })
	if _, err := c.Refusals(background(t)); err == nil || !strings.Contains(err.Error(), controller.ErrEnded.Error()) {
		t.Errorf("ended: %v", err)
	}
}

func TestReload(t *testing.T) {
	f := &fake{}
	c, _, _ := serve(t, f)
	if broken, err := c.Reload(background(t)); broken != nil || err != nil {
		t.Errorf("good: %v, %v", broken, err)
	}
	want := &controller.Broken{Error: "p.yaml: no such file or directory"}
	f.set(func(f *fake) { f.broken = want })
	broken, err := c.Reload(background(t))
	if diff := cmp.Diff(want, broken); diff != "" || err != nil {
		t.Errorf("broken: %s, %v", diff, err)
	}
	f.set(func(f *fake) { f.broken, f.err = nil, errors.New("EPERM") })
	if _, err := c.Reload(background(t)); err == nil || !strings.Contains(err.Error(), "EPERM") {
		t.Errorf("failed: %v", err)
	}
}

func TestEvents(t *testing.T) {
	c, hub, stop := serve(t, &fake{})
	ctx := background(t)
	heard := make(chan events.Event)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Events(ctx, []events.Kind{events.Changed, events.Lost}, nil, func(e events.Event) error { heard <- e; return nil })
	}()
	// The stream begins some time after the request.
	var first events.Event
	for n := 0; first.Kind == ""; n++ {
		hub.Publish(events.Event{Kind: events.MemberJoined})
		hub.Publish(events.Event{Kind: events.Changed, Device: "host"})
		select {
		case first = <-heard:
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nothing is heard")
		}
	}
	if first.Kind != events.Changed || first.Device != "host" {
		t.Errorf("heard %+v", first)
	}
	go func() {
		for range heard {
		}
	}()
	stop() // the stream does not keep the server from stopping
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	close(heard)
}

func TestEventsOfUnknownKind(t *testing.T) {
	c, _, _ := serve(t, &fake{})
	err := c.Events(background(t), []events.Kind{"chnged"}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), `kind "chnged": allowed are`) {
		t.Error(err)
	}
}

func TestTooManyStreams(t *testing.T) {
	c, hub, _ := serve(t, &fake{})
	ctx, cancel := context.WithCancel(background(t))
	defer cancel()
	var ready, done sync.WaitGroup
	for range mostStreams {
		ready.Add(1)
		one := sync.OnceFunc(ready.Done)
		done.Go(func() {
			_ = c.Events(ctx, nil, nil, func(events.Event) error { one(); return nil })
			one()
		})
	}
	all := make(chan struct{})
	go func() { ready.Wait(); close(all) }()
	for waiting := true; waiting; {
		hub.Publish(events.Event{Kind: events.Changed})
		select {
		case <-all:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := c.Events(ctx, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "streams are open") {
		t.Error(err)
	}
	cancel()
	done.Wait()
}

func TestPermissions(t *testing.T) {
	for _, test := range []struct {
		peer peer
		own  int
		may  bool
	}{
		{peer{cred: &unix.Ucred{Uid: 0}}, 1000, true},
		{peer{cred: &unix.Ucred{Uid: 1000}}, 1000, true},
		{peer{cred: &unix.Ucred{Uid: 1000}}, 0, false},
		{peer{cred: &unix.Ucred{Uid: 1001}}, 1000, false},
		{peer{err: unix.ENOPROTOOPT, cred: &unix.Ucred{}}, 0, false},
	} {
		if got := test.peer.may(test.own); got != test.may {
			t.Errorf("%+v asks %d: %v", test.peer.cred, test.own, got)
		}
	}
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(SocketPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// What a controller that died left is in nobody's way.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// A process of another user is refused although it could open the socket.
func TestOtherUser(t *testing.T) {
	roottest.Need(t)
	dir, err := os.MkdirTemp("", "sockns")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, http.NotFoundHandler()) }()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(SocketPath(dir), 0o666)); err != nil {
		t.Fatal(err)
	}
	curl := commandAs(65534, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", SocketPath(dir), "http://sockns/v1/state")
	out, err := curl.CombinedOutput()
	if err != nil || string(out) != "403" {
		t.Errorf("%v: %s", err, out)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// commandAs returns a command of another user.
func commandAs(uid uint32, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}
