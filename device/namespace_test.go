package device

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// newNamespace makes a fresh network namespace and opens it by a path.
func newNamespace(t *testing.T, name string) *Namespace {
	t.Helper()
	roottest.Need(t)
	var n *Namespace
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with this goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			path := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			n, err = Open(model.DeviceNamespace{Name: name, Path: path})
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// path returns a name for the namespace that lives as long as n is open.
func path(n *Namespace) string { return fmt.Sprintf("/proc/self/fd/%d", n.FD()) }

// ip runs the ip program in the namespace.
func ip(t *testing.T, n *Namespace, command string) {
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

func TestIdentity(t *testing.T) {
	one, two := newNamespace(t, "one"), newNamespace(t, "two")
	again, err := Open(model.DeviceNamespace{Name: "again", Path: path(one)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	host, err := Open(model.DeviceNamespace{Name: model.HostDevice})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if one.Identity() != again.Identity() {
		t.Errorf("two names for one namespace: %+v and %+v", one.Identity(), again.Identity())
	}
	if one.Identity() == two.Identity() || one.Identity() == host.Identity() {
		t.Errorf("identities are equal: %+v %+v %+v", one.Identity(), two.Identity(), host.Identity())
	}
	if one.Identity().Cookie == 0 || one.Identity().Cookie == two.Identity().Cookie {
		t.Errorf("cookies: %+v and %+v", one.Identity(), two.Identity())
	}
	if again.Name() != "again" {
		t.Errorf("Name = %q", again.Name())
	}
}

// TestHostIsTheCallersNamespace: on a locked thread, the host is where the
// thread is.
func TestHostIsTheCallersNamespace(t *testing.T) {
	one := newNamespace(t, "one")
	var identity Identity
	err := one.Do(func() error {
		host, err := Open(model.DeviceNamespace{Name: model.HostDevice})
		if err == nil {
			identity = host.Identity()
			host.Close()
		}
		return err
	})
	if err != nil || identity != one.Identity() {
		t.Errorf("host on a thread in one: %+v, %v, want %+v", identity, err, one.Identity())
	}
}

func TestOpenWithoutNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "blue")
	if err := os.WriteFile(file, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/run/netns/sockns-absent", "/proc/999999999/ns/net", file, "/proc/self/ns/uts"} {
		n, err := Open(model.DeviceNamespace{Name: "blue", Path: path})
		if err == nil {
			n.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "blue") {
			t.Errorf("Open(%s): %v, want one that is fs.ErrNotExist and names blue", path, err)
		}
	}
}

func TestLocalAddresses(t *testing.T) {
	n := newNamespace(t, "one")
	ip(t, n, "link set lo up")
	ip(t, n, "link add d0 type veth peer d1")
	ip(t, n, "link set d0 addrgenmode none up")
	for _, a := range []string{"192.0.2.9/24 dev d0", "192.0.2.10/32 dev lo", "198.51.100.1 peer 198.51.100.2 dev d0",
		"2001:db8::10/64 dev d0 nodad", "2001:db8::10/128 dev lo nodad", "127.1.2.3/8 dev lo", "fe80::1/64 dev d0 nodad"} {
		ip(t, n, "address add "+a)
	}
	got, err := n.LocalAddresses()
	if err != nil {
		t.Fatal(err)
	}
	var want []netip.Addr
	for _, a := range []string{"192.0.2.9", "192.0.2.10", "198.51.100.1", "2001:db8::10", "fe80::1"} {
		want = append(want, netip.MustParseAddr(a))
	}
	if !slices.Equal(got, want) {
		t.Errorf("LocalAddresses = %v, want %v", got, want)
	}
	empty, err := newNamespace(t, "two").LocalAddresses()
	if err != nil || len(empty) > 0 {
		t.Errorf("a fresh namespace has %v, %v", empty, err)
	}
}

func TestEphemeralPortsAreTheNamespaces(t *testing.T) {
	one, two := newNamespace(t, "one"), newNamespace(t, "two")
	err := one.Do(func() error { return os.WriteFile(portRange, []byte("40000 40100"), 0) })
	if err != nil {
		t.Fatal(err)
	}
	if first, last, err := one.EphemeralPorts(); err != nil || first != 40000 || last != 40100 {
		t.Errorf("EphemeralPorts of one = %d, %d, %v, want 40000, 40100", first, last, err)
	}
	if first, last, err := two.EphemeralPorts(); err != nil || first == 40000 || first >= last {
		t.Errorf("EphemeralPorts of two = %d, %d, %v, want the default", first, last, err)
	}
}

func TestDo(t *testing.T) {
	n := newNamespace(t, "one")
	wanted := errors.New("wanted")
	if err := n.Do(func() error { return wanted }); err != wanted {
		t.Errorf("Do = %v, want the function's error", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do returned nil for a function that did not return")
	}
	// Many at once, and no thread stays behind in the wrong place.
	before := threadsNamespace(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := n.Do(func() error { _, err := os.ReadFile(portRange); return err }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range 50 {
		if now := threadsNamespace(t); now != before {
			t.Fatalf("a thread stayed in %s, want %s", now, before)
		}
	}
}

func threadsNamespace(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}
