package cgroup

import (
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// Interest is what a policy wants of one directory of the tree and of those
// below it, whether they exist or not. It tells a watcher where to look and
// what matters of what it sees. An Interest is a value that is never modified
// and safe for concurrent use.
type Interest struct {
	query *query
	at    []*node
	here  bool
}

// NewInterest returns the interest of a policy in the root of the tree. The
// policy may not be modified afterwards.
func NewInterest(p *model.Policy) Interest {
	q := newQuery(p)
	return Interest{query: q, at: []*node{q.root}, here: len(q.root.claims) > 0}
}

// Child returns the interest in a directory of that name.
func (i Interest) Child(name string) Interest {
	c := Interest{query: i.query, at: step(i.at, name)}
	c.here = i.isDoor() || c.isDoor() || len(c.query.claimed(c.at, name)) > 0
	return c
}

// Here reports whether it changes the result of [Tree.Resolve] that the
// directory comes or goes: it would be a member, a door or a child of a door.
func (i Interest) Here() bool { return i.here }

// Below reports whether anything of interest can come up below the directory.
func (i Interest) Below() bool {
	if len(i.query.units) > 0 {
		return true
	}
	return slices.ContainsFunc(i.at, func(n *node) bool { return len(n.literal) > 0 || len(n.globs) > 0 })
}

func (i Interest) isDoor() bool {
	return slices.ContainsFunc(i.at, func(n *node) bool { return len(n.doors) > 0 })
}

// Children returns the cgroups directly below one. The error wraps
// [fs.ErrNotExist] if that is not there (any more).
func (t *Tree) Children(cgroup string) ([]Match, error) {
	fd, _, err := openDir(unix.AT_FDCWD, t.Dir(cgroup))
	if err != nil {
		return nil, &fs.PathError{Op: "list cgroup", Path: cgroup, Err: err}
	}
	defer unix.Close(fd)
	entries, err := readDir(fd, make([]byte, 32<<10))
	if err != nil {
		return nil, &fs.PathError{Op: "list cgroup", Path: cgroup, Err: err}
	}
	children := make([]Match, len(entries))
	for i, e := range entries {
		children[i] = Match{join(cgroup, e.name), e.inode}
	}
	return children, nil
}
