package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// newSubtree makes a cgroup for one test and removes it with all below it.
func newSubtree(t testing.TB) (*Tree, string) {
	t.Helper()
	roottest.Need(t)
	tree, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/sockns-cgroup-test-%d", os.Getpid())
	mkdir(t, tree, path)
	t.Cleanup(func() { removeAll(t, tree.Dir(path)) })
	return tree, path
}

func mkdir(t testing.TB, tree *Tree, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.MkdirAll(tree.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// removeAll removes a cgroup and those below it; their files go with them.
func removeAll(t testing.TB, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			removeAll(t, filepath.Join(dir, e.Name()))
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
}

func TestIDIsTheKernelsID(t *testing.T) {
	tree, path := newSubtree(t)
	id, err := tree.ID(path)
	if err != nil {
		t.Fatal(err)
	}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, tree.Dir(path), 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := binary.NativeEndian.Uint64(handle.Bytes()); id != want {
		t.Errorf("ID = %d, name_to_handle_at says %d", id, want)
	}
	if err := os.Remove(tree.Dir(path)); err != nil {
		t.Fatal(err)
	}
	_, err = tree.ID(path)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("id of a removed cgroup: %v, want one that is fs.ErrNotExist", err)
	}
	mkdir(t, tree, path)
	again, err := tree.ID(path)
	if err != nil || again == id {
		t.Errorf("remade cgroup: id %d, %v, want another than %d", again, err, id)
	}
}

func TestIDOfBadPaths(t *testing.T) {
	tree := OpenDirectory(t.TempDir())
	for _, path := range []string{"", "a", "/a/", "/a/../b", "/.."} {
		if _, err := tree.ID(path); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ID(%q): %v, want one that is fs.ErrInvalid", path, err)
		}
	}
}

func TestOpenRefusesOtherFileSystems(t *testing.T) {
	for _, root := range []string{t.TempDir(), "/nonexistent"} {
		if _, err := Open(root); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%s): %v, want one that is fs.ErrNotExist", root, err)
		}
	}
}

func TestResolveInCgroupfs(t *testing.T) {
	tree, top := newSubtree(t)
	mkdir(t, tree, top+"/a.slice/sockns-test-nginx.service", top+"/user.slice/user-1.slice/deep", top+"/user.slice/other", top+"/exact")
	found, err := tree.Resolve(&model.Policy{SocketNamespaces: []model.SocketNamespace{
		namespace("web", "sockns-test-nginx.service", top+"/exact"),
		namespace("user", "each:"+top+"/user.slice/user-*.slice"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`web = %[1]s/a.slice/sockns-test-nginx.service level 3
web = %[1]s/exact level 2
user/1 = %[1]s/user.slice/user-1.slice level 3 of user
door %[1]s/user.slice level 2 for user exempt %[1]s/user.slice/other
`, top)
	if got := render(found); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, m := range found.Members {
		if id, err := tree.ID(m.Path); err != nil || id != m.ID {
			t.Errorf("%s has id %d, %v, snapshot has %d", m.Path, id, err, m.ID)
		}
	}
}

// TestResolveWhileCgroupsComeAndGo: a walk never fails because of what others
// do to the tree meanwhile, and never loses what stays.
func TestResolveWhileCgroupsComeAndGo(t *testing.T) {
	tree, top := newSubtree(t)
	mkdir(t, tree, top+"/t/stay-1")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			dir := tree.Dir(fmt.Sprintf("%s/t/come-%d", top, i%7))
			os.MkdirAll(dir+"/x/y", 0o755)
			os.Remove(dir + "/x/y")
			os.Remove(dir + "/x")
			os.Remove(dir)
		}
	}()
	p := &model.Policy{SocketNamespaces: []model.SocketNamespace{
		namespace("stay", "each:"+top+"/t/stay-*"),
		namespace("come", "each:"+top+"/t/come-*/x"),
		namespace("unit", "sockns-absent.service"),
	}}
	for range 300 {
		found, err := tree.Resolve(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Members) == 0 || found.Members[0].Namespace != "stay/1" {
			t.Fatalf("lost what stays: %+v", found.Members)
		}
		runtime.Gosched()
	}
	close(stop)
	<-stopped
}

// BenchmarkResolve walks 2,000 cgroups for 10,000 namespaces.
func BenchmarkResolve(b *testing.B) {
	tree, top := newSubtree(b)
	for i := range 2000 {
		mkdir(b, tree, fmt.Sprintf("%s/s-%d.slice/app-%d.service", top, i/100, i))
	}
	units, paths := &model.Policy{}, &model.Policy{}
	for i := range 10000 {
		name := fmt.Sprintf("n%d", i)
		units.SocketNamespaces = append(units.SocketNamespaces, namespace(name, fmt.Sprintf("app-%d.service", i)))
		paths.SocketNamespaces = append(paths.SocketNamespaces, namespace(name, fmt.Sprintf("%s/s-%d.slice/app-%d.service", top, i/100, i)))
	}
	template := &model.Policy{SocketNamespaces: []model.SocketNamespace{namespace("t", "each:"+top+"/s-*.slice/app-*.service")}}
	for name, p := range map[string]*model.Policy{"units": units, "paths": paths, "template": template} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				found, err := tree.Resolve(p)
				if err != nil || len(found.Members) != 2000 {
					b.Fatal(err, len(found.Members))
				}
			}
		})
	}
}
