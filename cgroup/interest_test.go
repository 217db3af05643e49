package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/sockns/sockns/model"
)

func TestInterest(t *testing.T) {
	paths := NewInterest(&model.Policy{SocketNamespaces: []model.SocketNamespace{
		namespace("web", "/prod.slice/web"), namespace("user", "each:/user.slice/user-*.slice/app"),
	}})
	units := NewInterest(&model.Policy{SocketNamespaces: []model.SocketNamespace{
		namespace("web", "nginx.service"), namespace("user", "each:/user.slice/user-*.slice"),
	}})
	tests := []struct {
		name        string
		root        Interest
		path        string
		here, below bool
	}{
		{"root", paths, "/", false, true},
		{"ancestor of a member", paths, "/prod.slice", false, true},
		{"member", paths, "/prod.slice/web", true, false},
		{"below a member", paths, "/prod.slice/web/x", false, false},
		{"nobody's", paths, "/prod.slice/other", false, false},
		{"door", paths, "/user.slice", true, true},
		{"in a door, between", paths, "/user.slice/user-1.slice", true, true},
		{"in a door, no match", paths, "/user.slice/other", true, false},
		{"instance", paths, "/user.slice/user-1.slice/app", true, false},
		{"below what does not match", paths, "/user.slice/other/app", false, false},
		{"unit, escaped, anywhere", units, "/a/b/_nginx.service", true, true},
		{"another unit", units, "/a/b/c.service", false, true},
		{"root with units", units, "/", false, true},
		{"instance with units", units, "/user.slice/user-1.slice", true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i := test.root
			for _, name := range components(test.path) {
				i = i.Child(name)
			}
			if i.Here() != test.here || i.Below() != test.below {
				t.Errorf("here %t, below %t, want %t, %t", i.Here(), i.Below(), test.here, test.below)
			}
		})
	}
}

func TestChildren(t *testing.T) {
	tree := OpenDirectory(t.TempDir())
	for _, dir := range []string{"/a/b", "/a/c/d"} {
		if err := os.MkdirAll(tree.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(tree.Dir("/a/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	children, err := tree.Children("/a")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range children {
		paths = append(paths, c.Path)
	}
	slices.Sort(paths)
	if !slices.Equal(paths, []string{"/a/b", "/a/c"}) {
		t.Errorf("Children = %v", paths)
	}
	if _, err := tree.Children("/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("children of nothing: %v, want one that is fs.ErrNotExist", err)
	}
}
