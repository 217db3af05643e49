package watch

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// newNamespace makes a fresh network namespace.
func newNamespace(t *testing.T) *device.Namespace {
	t.Helper()
	roottest.Need(t)
	var n *device.Namespace
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with this goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n, err = device.Open(model.DeviceNamespace{Name: model.HostDevice})
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestAddresses(t *testing.T) {
	n, other := newNamespace(t), newNamespace(t)
	ip := func(n *device.Namespace, command string) {
		t.Helper()
		err := n.Do(func() error {
			out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %s: %w: %s", command, err, out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := OpenAddresses(n.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	silent(t, a.Events(), "nothing")
	for _, command := range []string{
		"address add 192.0.2.10/32 dev lo", "address del 192.0.2.10/32 dev lo",
		"address add 2001:db8::10/128 dev lo", "address del 2001:db8::10/128 dev lo",
	} {
		ip(n, command)
		signalled(t, a.Events(), command)
	}
	silent(t, a.Events(), "afterwards")
	ip(other, "address add 192.0.2.10/32 dev lo")
	silent(t, a.Events(), "another namespace's address")
	if err := a.Err(); err != nil {
		t.Error(err)
	}
}

func TestAddressesClose(t *testing.T) {
	n := newNamespace(t)
	checkLeaks(t)
	for range 10 {
		a, err := OpenAddresses(n.FD())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := a.Err(); err != nil {
			t.Error(err)
		}
	}
}
