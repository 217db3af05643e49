package watch

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/e2e/roottest"
)

func TestNamespaceMounts(t *testing.T) {
	text := `41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
50 24 0:4 net:[4026532290] /run/netns/blue rw shared:20 - nsfs nsfs rw
51 24 0:4 mnt:[4026532291] /run/snapd/ns/x.mnt rw - nsfs nsfs rw

52 24
`
	if got, want := namespaceMounts(text), "net:[4026532290] /run/netns/blue\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// bindNetns makes a network namespace and mounts it on a file.
func bindNetns(t *testing.T, path string) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with this goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
}

// alone runs the test once more as a process with mounts and names of its
// own, where nobody else's are seen, and tells whether this is that process.
func alone(t *testing.T) bool {
	t.Helper()
	const mark = "SOCKNS_TEST_ALONE"
	if os.Getenv(mark) == t.Name() {
		table, err := os.ReadFile(mountTable)
		if err != nil {
			t.Fatal(err)
		}
		// Who removes a file removes what is mounted on it everywhere.
		for line := range strings.Lines(namespaceMounts(string(table))) {
			_ = unix.Unmount(strings.Fields(line)[1], unix.MNT_DETACH)
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), mark+"="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := again.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

func TestNetns(t *testing.T) {
	roottest.Need(t)
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "blue")
	n, err := OpenNetns(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	silent(t, n.Events(), "nothing")
	write(t, name, "")
	silent(t, n.Events(), "a file that nobody named")
	bindNetns(t, name)
	t.Cleanup(func() { unix.Unmount(name, unix.MNT_DETACH) })
	signalled(t, n.Events(), "a namespace is named")
	bindNetns(t, name)
	t.Cleanup(func() { unix.Unmount(name, unix.MNT_DETACH) })
	signalled(t, n.Events(), "the name is given to another")
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	silent(t, n.Events(), "a mount that is no network namespace")
	if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	signalled(t, n.Events(), "the name goes")
	if err := os.Symlink("/proc/self/ns/net", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	signalled(t, n.Events(), "a link is made")
	silent(t, n.Events(), "afterwards")
	if err := n.Err(); err != nil {
		t.Error(err)
	}
}

func TestNetnsClose(t *testing.T) {
	checkLeaks(t)
	for range 10 {
		n, err := OpenNetns()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
