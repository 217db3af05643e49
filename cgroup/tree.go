// Package cgroup finds the cgroup v2 subtrees that a policy names: where the
// tree is mounted, the ids by which nftables and BPF know a cgroup, which
// cgroups are members of which socket namespace at this moment, and below
// which directories a new member can appear.
//
// It only reads. Everything it returns is a snapshot: cgroups come and go, so
// whoever keeps one looks again when package watch says so.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxLevel is the deepest level that the kernel's `socket cgroupv2 level`
// takes; cgroups below it can't be told apart and are not looked for.
const MaxLevel = 255

// Tree is a mounted cgroup v2 hierarchy. It is a value without open
// descriptors and safe for concurrent use.
type Tree struct {
	mount string // directory of the mount
	level int    // level of the mount's root: 0 unless only a subtree is mounted
}

// Find returns the cgroup2 mount that /proc/self/mountinfo shows, on unified
// and on hybrid systems alike. Of several it takes one that shows the whole
// cgroup namespace. The error wraps [fs.ErrNotExist] and names the remedy if
// there is none.
func Find() (*Tree, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	var hidden error // a mount that another one covers is listed, but can't be opened
	for _, m := range parseMountinfo(string(text)) {
		t, err := Open(m.point)
		if err == nil {
			t.level = m.level()
			return t, nil
		}
		hidden = errors.Join(hidden, err)
	}
	if hidden != nil {
		return nil, fmt.Errorf("find the cgroup2 mount: %w", hidden)
	}
	return nil, fmt.Errorf("no cgroup v2 hierarchy is mounted: mount one with "+
		"`mount -t cgroup2 none /sys/fs/cgroup`: %w", fs.ErrNotExist)
}

// Open returns the tree that is mounted at root, an absolute path. The error
// wraps [fs.ErrNotExist] if there is no such directory or if it is no cgroup2
// file system. Levels count from root, so root should be a mount of the whole
// cgroup namespace; [Find] knows about others.
func Open(root string) (*Tree, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, &fs.PathError{Op: "open cgroup tree", Path: root, Err: err}
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, fmt.Errorf("open cgroup tree %s: not a cgroup2 file system, `grep cgroup2 /proc/self/mountinfo` shows where one is mounted: %w",
			root, fs.ErrNotExist)
	}
	return OpenDirectory(root), nil
}

// OpenDirectory returns the tree below any directory, without a look at what
// kind of file system it is. It serves tests that have no privileges: the ids
// of such a tree are inode numbers that mean nothing to the kernel's rules.
func OpenDirectory(root string) *Tree { return &Tree{mount: path.Clean(root)} }

// Mount returns the directory where the tree is mounted.
func (t *Tree) Mount() string { return t.mount }

// Dir returns the directory of a cgroup: the mount and the cgroup's path,
// which is absolute below the mount, as in "/prod.slice/web".
func (t *Tree) Dir(cgroup string) string { return path.Join(t.mount, cgroup) }

// ID returns the kernel's id of a cgroup, which nftables compares in `socket
// cgroupv2` and bpf_skb_cgroup_id returns.
//
// It is the inode number of the directory: kernfs uses one 64-bit number for
// both on 64-bit machines, and hands out the same one through
// name_to_handle_at(2), cgroup_id() in include/linux/cgroup.h. A cgroup that
// is removed and made again has another. The error wraps [fs.ErrNotExist] if
// there is no such cgroup.
func (t *Tree) ID(cgroup string) (uint64, error) {
	id, _, err := t.Stat(cgroup)
	return id, err
}

// Stat returns the id of a cgroup, as [Tree.ID], and the user that owns it, as
// [Member.Owner].
func (t *Tree) Stat(cgroup string) (id uint64, owner uint32, err error) {
	var st unix.Stat_t
	err = checkPath(cgroup)
	if err == nil {
		err = ignoringEINTR(func() error { return unix.Stat(t.Dir(cgroup), &st) })
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return 0, 0, &fs.PathError{Op: "cgroup id", Path: cgroup, Err: err}
	}
	return st.Ino, st.Uid, nil
}

// Level returns the level of a cgroup as `socket cgroupv2 level` counts it:
// the components of its path from the root of the cgroup namespace, so 0 for
// the root itself and 2 for "/prod.slice/web". (Kernels before 6.12 count from
// the root of the whole hierarchy, which is the same outside of containers.)
func (t *Tree) Level(cgroup string) int { return t.level + Level(cgroup) }

// Level returns the number of components of a cgroup's path.
func Level(cgroup string) int {
	if cgroup == "/" || cgroup == "" {
		return 0
	}
	return strings.Count(cgroup, "/")
}

// checkPath refuses paths that are not in the form of [model.Member].
func checkPath(cgroup string) error {
	if !path.IsAbs(cgroup) || path.Clean(cgroup) != cgroup {
		return fmt.Errorf("not an absolute, clean path: %w", fs.ErrInvalid)
	}
	return nil
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
