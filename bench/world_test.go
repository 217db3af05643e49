package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// inside is set in the environment of the process that is in a network
// namespace of its own.
const inside = "SOCKNS_BENCH_INSIDE"

// TestMain starts the program again in a network namespace of its own, which
// goes with it.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		code := m.Run()
		if err := removeCgroups(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// cgroups are the cgroups that the policies of all benchmarks have as members.
var cgroups struct {
	sync.Mutex
	base string // cgroup that holds them
	tree *cgroup.Tree
	made int
}

// memberPath returns the cgroup of a socket namespace.
func memberPath(i int) string { return fmt.Sprintf("%s/m%05d", basePath(), i) }

func basePath() string { return fmt.Sprintf("/snbench%d", os.Getpid()) }

// haveCgroups makes the members' cgroups below n, and keeps them for the next
// benchmark.
func haveCgroups(t testing.TB, n int) *cgroup.Tree {
	t.Helper()
	roottest.Need(t)
	c := &cgroups
	c.Lock()
	defer c.Unlock()
	if c.tree == nil {
		tree, err := cgroup.Find()
		if err != nil {
			t.Fatal(err)
		}
		c.tree, c.base = tree, tree.Dir(basePath())
		if err := os.Mkdir(c.base, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for ; c.made < n; c.made++ {
		if err := os.Mkdir(c.tree.Dir(memberPath(c.made)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c.tree
}

// removeCgroups removes the members' cgroups, once the process has left them.
func removeCgroups() error {
	c := &cgroups
	if c.tree == nil {
		return nil
	}
	err := enterCgroup("/")
	_ = filepath.WalkDir(c.base, func(path string, d fs.DirEntry, e error) error {
		if e == nil && d.IsDir() && path != c.base {
			err = errors.Join(err, unix.Rmdir(path))
			return fs.SkipDir
		}
		return nil
	})
	return errors.Join(err, unix.Rmdir(c.base))
}

// enterCgroup moves the process: sockets belong to the cgroup that they were
// made in.
func enterCgroup(path string) error {
	return os.WriteFile(filepath.Join(cgroups.tree.Dir(path), "cgroup.procs"), []byte("0"), 0)
}

func openHost(t testing.TB) *controller.Host {
	t.Helper()
	host, err := controller.OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return host
}

// enforce applies a policy.
func enforce(t testing.TB, host *controller.Host, policy *model.Policy) {
	t.Helper()
	plan, err := host.Plan(policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Apply(plan); err != nil {
		t.Fatal(err)
	}
}

// remove takes away all that a host's policy made.
func remove(t testing.TB, host *controller.Host) {
	t.Helper()
	enforce(t, host, nil)
}
