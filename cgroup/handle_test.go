package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

func TestPath(t *testing.T) {
	tree, root := newSubtree(t)
	if err := os.Mkdir(tree.Dir(root+"/a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, cgroup := range []string{"/", root, root + "/a"} {
		id, err := tree.ID(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tree.Path(id); got != cgroup || err != nil {
			t.Errorf("%s is %q, %v", cgroup, got, err)
		}
	}
	id, err := tree.ID(root + "/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(tree.Dir(root + "/a")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{id, 0} {
		if got, err := tree.Path(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d is %q, %v", id, got, err)
		}
	}
}
