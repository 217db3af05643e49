package controller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTimeWait records what docs/limits.md says of TIME-WAIT: a connection that
// reuses the two addresses and ports of one that the listener's end closed less
// than a minute ago reaches the listener though its rules refuse it by now; from
// another port it does not.
func TestTimeWait(t *testing.T) {
	t.Run("packets alone", func(t *testing.T) { timeWait(t, false) })
	t.Run("both tiers", func(t *testing.T) { timeWait(t, true) })
}

func timeWait(t *testing.T, calls bool) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		if !calls {
			packetsAlone(h)
		} else if !h.callSupport().OK() {
			t.Error("no syscall tier:", h.callSupport().Why)
			return
		}
		up(t)
		policy := func(from string) string {
			return fmt.Sprintf("apiVersion: sockns/v1\nsocketNamespaces:\n  web:\n    members: [{cgroup: %s/web}]\n    accept: [{protocol: tcp, ports: 9000, from: %s}]\n", base, from)
		}
		apply(fatal{t}, h, mustParse(fatal{t}, policy("any")))
		check := func(what string, err error) {
			t.Helper()
			if err != nil {
				fatal{t}.Fatalf("%s: %v", what, err)
			}
		}
		at := &unix.SockaddrInet4{Port: 9000, Addr: [4]byte{127, 0, 0, 1}}
		var listener int
		inCgroup(t, h, base+"/web", func() {
			var err error
			listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			check("socket", err)
			check("bind", errors.Join(unix.Bind(listener, at), unix.Listen(listener, 8)))
		})
		defer unix.Close(listener)
		// connect connects from a port, and returns the socket, which is the caller's.
		connect := func(port int) (int, error) {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			check("socket", err)
			check("bind", errors.Join(unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.Bind(s, &unix.SockaddrInet4{Port: port, Addr: at.Addr})))
			return s, unix.Connect(s, at)
		}
		first, err := connect(40001)
		check("a connection that is allowed", err)
		accepted, _, err := unix.Accept(listener)
		check("accept", err)
		check("close", unix.Close(accepted)) // the listener's end first: the TIME-WAIT is its
		n, err := unix.Read(first, make([]byte, 1))
		if n != 0 || err != nil {
			t.Errorf("read at the end: %d, %v", n, err)
		}
		check("close", unix.Close(first))
		time.Sleep(50 * time.Millisecond) // until its last ACK has come

		apply(fatal{t}, h, mustParse(fatal{t}, policy("10.0.0.1")))
		other, err := connect(40002)
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a connection from another port: %v", err)
		}
		unix.Close(other)
		again, err := connect(40001)
		if err != nil {
			t.Errorf("a connection that reuses the ports: %v: docs/limits.md says that it passes", err)
		}
		unix.Close(again)
	})
}
