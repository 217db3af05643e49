package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

// toldOf is a controller that has one socket namespace.
type toldOf string

func (n toldOf) State(context.Context) (*controller.State, error) { return &controller.State{}, nil }

func (n toldOf) Reload(context.Context) (*controller.Broken, error) { return nil, nil }

func (n toldOf) Refusals(context.Context) (*controller.Refusals, error) {
	return &controller.Refusals{Since: time.Unix(0, 0), Refusals: []events.Event{connectTo(5432, 7)}}, nil
}

func (n toldOf) Why(_ context.Context, subject string) (*controller.Why, error) {
	if subject != string(n) {
		return nil, controller.ErrUnknown("the policy in force has no socket namespace " + subject)
	}
	return &controller.Why{Namespace: subject}, nil
}

// teller is a running controller that tells of one connect again and again.
type teller struct {
	stop func()
}

// connectTo is a connect of web to db that was audited.
func connectTo(port uint16, times uint64) events.Event {
	return events.Event{Time: time.Now(), Kind: events.Decision, Namespace: "web", Decided: &events.Decided{
		Action: model.Deny, Mode: model.Audit, Hook: "connect", Protocol: model.TCP, Count: times, Peer: "db", Text: "default",
		Source: netip.MustParseAddrPort("127.0.0.1:40000"), Destination: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}}
}

func tell(t *testing.T, dir string, port uint16) *teller {
	t.Helper()
	l, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	hub := &events.Hub{}
	work.Go(func() {
		server := &api.Server{Controller: toldOf("web"), Events: hub, Metrics: http.NotFoundHandler()}
		if err := api.Serve(ctx, l, server.Handler()); err != nil {
			t.Error(err)
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			hub.Publish(connectTo(port, 1))
			time.Sleep(5 * time.Millisecond)
		}
	})
	c := &teller{stop: sync.OnceFunc(func() { cancel(); work.Wait() })}
	t.Cleanup(c.stop)
	return c
}

// hears waits for words.
func (o *output) hears(t *testing.T, words string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(o.String(), words); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%q was not said:\n%s", words, o)
			return
		}
	}
}

const liveText = `apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: /web}]
    mode: audit
  db:
    members: [{cgroup: /db}]
`

// liveWorld has a runtime directory and a policy.
func liveWorld(t *testing.T) (dir, policy string) {
	dir, err := os.MkdirTemp("", "sockns") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("SOCKNS_RUNTIME_DIR", dir)
	policy = dir + "/policy.yaml"
	if err := os.WriteFile(policy, []byte(liveText), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, policy
}

// learnLive runs the command and returns what it prints.
func learnLive(ctx context.Context, messages *output, args ...string) (string, error) {
	var out bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: &out, err: messages}
	root := c.command()
	root.SetArgs(append([]string{"learn"}, args...))
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// TestLearnUntilInterrupted: it goes on over a restart of the controller and
// an edit of the policy, and writes when it is interrupted.
func TestLearnUntilInterrupted(t *testing.T) {
	dir, policy := liveWorld(t)
	first := tell(t, dir, 5432)
	ended := make(chan error, 1)
	messages := &output{}
	go func() {
		_, err := learnLive(t.Context(), messages, "web", "-f", policy, "--write", "--enforce")
		ended <- err
	}()
	messages.hears(t, "seen: web connect db 127.0.0.1:5432/tcp")
	first.stop()
	messages.hears(t, "the controller has ended")
	tell(t, dir, 5433)
	messages.hears(t, "seen: web connect db 127.0.0.1:5433/tcp")
	edited := strings.Replace(liveText, "  db:", "  db: # PostgreSQL", 1)
	if err := os.WriteFile(policy, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, messages)
	}
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mode: enforce", `{protocol: tcp, ports: "5432-5433", to: db}`, "# PostgreSQL", "# seen "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestLearnForATime: it ends by itself; a policy that broke meanwhile is not
// written, and what was learned is not lost.
func TestLearnForATime(t *testing.T) {
	dir, policy := liveWorld(t)
	tell(t, dir, 5432)
	messages := &output{}
	go func() {
		messages.hears(t, "seen: ")
		if err := os.WriteFile(policy, []byte("nonsense: 1\n"), 0o644); err != nil {
			t.Error(err)
		}
	}()
	out, err := learnLive(t.Context(), messages, "web", "-f", policy, "--write", "--for", "500ms")
	if err == nil || !strings.Contains(err.Error(), "the policy was changed meanwhile") || !strings.Contains(err.Error(), "policy.yaml:1:1") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out, "{protocol: tcp, ports: 5432, to: db}") {
		t.Errorf("learned:\n%s", out)
	}
	if text, _ := os.ReadFile(policy); string(text) != "nonsense: 1\n" {
		t.Errorf("written:\n%s", text)
	}
}

func TestLearnWhatIsRemembered(t *testing.T) {
	dir, policy := liveWorld(t)
	tell(t, dir, 5432)
	messages := &output{}
	out, err := learnLive(t.Context(), messages, "web", "-f", policy, "--remembered")
	if err != nil || !strings.Contains(out, "# seen 7 times") || !strings.Contains(out, "{protocol: tcp, ports: 5432, to: db}") {
		t.Errorf("%v\n%s", err, out)
	}
	messages.hears(t, "from what was refused since")
}

func TestLearnFromNobody(t *testing.T) {
	dir, policy := liveWorld(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"web", "-f", policy}, "no controller runs here: start it with `sockns run`"},
		{[]string{"web", "-f", policy}, "or name what watch -o json wrote with --from"},
		{[]string{"web", "-f", policy, "--for", "-1s"}, "--for -1s"},
		{[]string{"web", "-f", policy, "--for", "1s", "--from", "seen.json"}, "none of the others can be"},
		{[]string{"web", "-f", policy, "--remembered"}, "no controller runs here"},
		{[]string{"wbe", "-f", policy}, "the policy has no socket namespace wbe"},
	} {
		if _, err := learnLive(t.Context(), &output{}, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.args, err)
		}
	}
	tell(t, dir, 5432)
	if _, err := learnLive(t.Context(), &output{}, "db", "-f", policy); err == nil || !strings.Contains(err.Error(), "the policy in force has no socket namespace db: have its files declare it") {
		t.Error(err)
	}
}

// TestLearnTogether: several that end at once lose nothing of each other.
func TestLearnTogether(t *testing.T) {
	dir, policy := liveWorld(t)
	tell(t, dir, 5432)
	if err := os.Chmod(policy, 0o640); err != nil {
		t.Fatal(err)
	}
	link := dir + "/link.yaml"
	if err := os.Symlink(policy, link); err != nil {
		t.Fatal(err)
	}
	seen := dir + "/seen.json"
	var lines strings.Builder
	for _, name := range []string{"web", "db"} {
		fmt.Fprintf(&lines, `{"kind":"decision","socketNamespace":%q,"decided":{"hook":"connect","protocol":"tcp","source":"10.0.0.1:1","destination":"10.0.0.2:80","count":1}}`+"\n", name)
	}
	if err := os.WriteFile(seen, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, name := range []string{"web", "db"} {
		all.Go(func() {
			if _, err := learnLive(t.Context(), &output{}, name, "-f", link, "--from", seen, "--write"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(policy)
	if n := strings.Count(string(text), "to: 10.0.0.2"); err != nil || n != 2 {
		t.Errorf("%d of 2 rules, %v:\n%s", n, err, text)
	}
	info, err := os.Lstat(policy)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
