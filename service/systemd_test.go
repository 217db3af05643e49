package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sockns/sockns/events"
)

// systemd listens where NOTIFY_SOCKET leads, as PID 1 does.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

func fakeSystemd(t *testing.T) *systemd {
	t.Helper()
	dir, err := os.MkdirTemp("", "sockns") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); os.RemoveAll(dir) })
	t.Setenv("NOTIFY_SOCKET", path)
	return &systemd{t, conn}
}

// expect fails unless the next message is like a regular expression.
func (s *systemd) expect(want string) string {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := s.conn.Read(buf)
	if err != nil {
		s.t.Fatalf("waiting for %q: %v", want, err)
	}
	got := string(buf[:n])
	if !regexp.MustCompile("^(?:" + want + ")$").MatchString(got) {
		s.t.Errorf("got %q, want %q", got, want)
	}
	return got
}

func TestNotify(t *testing.T) {
	s := fakeSystemd(t)
	n := newNotifier(slog.New(slog.DiscardHandler))
	n.reloading() // is not said before the first READY
	n.ready()
	n.observe(events.Event{Kind: events.PolicyLoaded})
	s.expect("STATUS=the policy is in force")
	n.observe(events.Event{Kind: events.Started})
	s.expect("READY=1\nSTATUS=the policy is in force")
	n.reloading()
	s.expect(`RELOADING=1\nMONOTONIC_USEC=[0-9]+\n?`)
	n.observe(events.Event{Kind: events.PolicyBroken, Message: "the last good policy stays in force",
		Problems: []events.Problem{{File: "p.yaml", Line: 2, Column: 1, Severity: "error", Message: "no"}}})
	s.expect("STATUS=the last good policy stays in force, the files are broken: p.yaml:2:1: error: no")
	n.ready()
	s.expect("READY=1")
	n.observe(events.Event{Kind: events.MemberJoined}) // is nobody's business there
	n.observe(events.Event{Kind: events.Failed, Message: "could not reconcile", Error: "EPERM"})
	s.expect("STATUS=could not reconcile: EPERM")
	n.observe(events.Event{Kind: events.Stopping, Message: "what is enforced stays"})
	s.expect("STOPPING=1\nSTATUS=what is enforced stays")
}

// The watchdog is fed while the reconciler answers, and starves otherwise.
func TestWatchdog(t *testing.T) {
	s := fakeSystemd(t)
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", "")
	n := newNotifier(slog.New(slog.DiscardHandler))
	var answers atomic.Bool
	answers.Store(true)
	asked := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.watchdog(ctx, func(context.Context) error {
			select {
			case asked <- struct{}{}:
			default:
			}
			if !answers.Load() {
				return errors.New("it hangs")
			}
			return nil
		})
	}()
	n.observe(events.Event{Kind: events.Started})
	if got := s.expect("READY=1\nSTATUS=.*"); strings.Contains(got, "WATCHDOG") {
		t.Error("a sign of life before READY")
	}
	s.expect("WATCHDOG=1")
	s.expect("WATCHDOG=1")
	answers.Store(false)
	for range 3 { // one answer may be on its way
		<-asked
	}
	if err := s.conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for {
		if _, err := s.conn.Read(buf); err != nil {
			break // what was on its way is read
		}
	}
	<-asked
	<-asked
	if err := s.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.conn.Read(buf); err == nil {
		t.Errorf("a sign of life from a reconciler that hangs: %s", buf[:n])
	}
	cancel()
	<-ended
}

func TestLoopback(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "127.0.0.1:9469": true, "127.9.9.9:0": true, "[::1]:9469": true,
		"0.0.0.0:9469": false, ":9469": false, "192.0.2.1:1": false, "[::]:1": false, "localhost:1": false, "127.0.0.1": false,
	} {
		if _, err := loopback(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
