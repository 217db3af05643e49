package cgroup

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// Resolve looks up everything that a policy names, in one walk of the tree.
//
//   - A member with a cgroup path is that directory.
//   - A member with a unit is every directory that systemd would call so, in
//     whatever slice, those of nested managers (user@1000.service) included;
//     [Member.Owner] tells them apart.
//   - A template has a member for each directory that matches its pattern.
//   - A door is a directory that matches a template's pattern up to a
//     wildcard, or between a wildcard and the end of the pattern. The root is
//     none, and no directory is that belongs to a namespace of the same
//     device namespace: what is new in it has that namespace's policy.
//
// A policy without units is looked up without walking what it does not name.
// Cgroups that vanish during the walk are left out, as if it had come later.
// Any other error is returned without a result, so that nothing acts on a
// partial view.
func (t *Tree) Resolve(p *model.Policy) (*Found, error) {
	w := &walk{
		tree:  t,
		query: newQuery(p),
		seen:  make([][]bool, len(p.SocketNamespaces)),
		found: &Found{},
	}
	for i := range p.SocketNamespaces {
		w.seen[i] = make([]bool, len(p.SocketNamespaces[i].Members))
	}
	if err := w.start(); err != nil {
		return nil, fmt.Errorf("resolve the policy's cgroups below %s: %w", t.mount, err)
	}
	for i, seen := range w.seen {
		for j, ok := range seen {
			if n := &p.SocketNamespaces[i]; !ok {
				w.found.Missing = append(w.found.Missing, Missing{n.Name, n.Members[j]})
			}
		}
	}
	w.found.finish(w.places)
	return w.found, nil
}

// walk is one pass over the directories of a tree.
type walk struct {
	tree   *Tree
	query  *query
	seen   [][]bool // for each namespace and member: found
	found  *Found
	places []int          // of the namespaces of found.Members in the policy
	buf    [32 << 10]byte // for getdents64
}

// place is a directory that the walk has reached.
type place struct {
	Match
	level int
	at    []*node  // what the query wants here and below
	held  []string // device namespaces of which this or an ancestor is a member
}

func (w *walk) start() error {
	fd, st, err := openDir(unix.AT_FDCWD, w.tree.mount)
	if err != nil {
		return err
	}
	root := place{Match: Match{"/", st.Ino}, level: w.tree.level, at: []*node{w.query.root}}
	root.held = w.claim(&root, w.query.root.claims, st.Uid)
	return w.descend(fd, root)
}

// descend visits the children of a directory that is open as fd, and closes fd.
func (w *walk) descend(fd int, dir place) error {
	defer unix.Close(fd)
	if dir.level == MaxLevel {
		return nil
	}
	children, err := w.children(fd, dir)
	if err != nil {
		return err
	}
	doors := w.doors(dir)
	for _, c := range children {
		child := place{
			Match: Match{join(dir.Path, c.name), c.inode},
			level: dir.level + 1,
			at:    step(dir.at, c.name),
		}
		var st unix.Stat_t
		claims := w.query.claimed(child.at, c.name)
		deeper := len(child.at) > 0 || len(w.query.units) > 0
		if c.inode != 0 && deeper && len(w.query.units) == 0 && leaves(child.at) {
			deeper = false // nothing below it, and no question whose it is
		}
		if deeper { // which is so for every child with claims
			err := ignoringEINTR(func() error { return unix.Fstatat(fd, c.name, &st, unix.AT_SYMLINK_NOFOLLOW) })
			if gone(err) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", child.Path, err)
			}
			child.ID = st.Ino
		}
		child.held = append(dir.held[:len(dir.held):len(dir.held)], w.claim(&child, claims, st.Uid)...)
		for _, d := range doors {
			if !slices.Contains(child.held, d.Device) {
				d.Exempt = append(d.Exempt, child.Match)
			}
		}
		// kernfs counts the subdirectories of a directory in its links (2 + n;
		// file systems that don't count say 1), which spares most openings.
		if !deeper || st.Nlink == 2 && len(w.doors(child)) == 0 {
			continue
		}
		next, _, err := openDir(fd, c.name)
		if gone(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", child.Path, err)
		}
		if err := w.descend(next, child); err != nil {
			return err
		}
	}
	for _, d := range doors {
		w.found.Doors = append(w.found.Doors, *d)
	}
	return nil
}

// children returns the directories below dir that may matter.
func (w *walk) children(fd int, dir place) ([]entry, error) {
	if w.query.listed(dir.at) {
		entries, err := readDir(fd, w.buf[:])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir.Path, err)
		}
		return entries, nil
	}
	var names []entry // what does not exist is found out by its stat
	for i, n := range dir.at {
		for name := range n.literal {
			known := func(n *node) bool { return n.literal[name] != nil }
			if !slices.ContainsFunc(dir.at[:i], known) {
				names = append(names, entry{name: name})
			}
		}
	}
	if len(names) < worthListing {
		return names, nil
	}
	wanted := make(map[string]bool, len(names))
	for _, e := range names {
		wanted[e.name] = true
	}
	entries, err := readDir(fd, w.buf[:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path, err)
	}
	return slices.DeleteFunc(entries, func(e entry) bool { return !wanted[e.name] }), nil
}

// worthListing is how many names take longer to look up one by one than to list
// a directory in which there are others.
const worthListing = 64

// claim records a directory as a member of the namespaces that want it, and
// returns their device namespaces.
func (w *walk) claim(dir *place, claims []claim, owner uint32) (devices []string) {
	for _, c := range claims {
		n := &w.query.policy.SocketNamespaces[c.namespace]
		m := Member{Namespace: n.Name, Device: n.Device, Match: dir.Match, Level: dir.level, Owner: owner}
		if c.member == each {
			name, ok := model.InstanceName(n.Name, n.Each, dir.Path)
			if !ok {
				continue
			}
			m.Namespace, m.Template = name, n.Name
		} else {
			w.seen[c.namespace][c.member] = true
		}
		w.found.Members, w.places = append(w.found.Members, m), append(w.places, c.namespace)
		devices = append(devices, n.Device)
	}
	return devices
}

// doors returns the doors that a directory is, one for each device namespace
// that wants one.
func (w *walk) doors(dir place) []*Door {
	var doors []*Door
	for _, n := range dir.at {
		for _, template := range n.doors {
			ns := &w.query.policy.SocketNamespaces[template]
			if slices.Contains(dir.held, ns.Device) {
				continue
			}
			i := slices.IndexFunc(doors, func(d *Door) bool { return d.Device == ns.Device })
			if i < 0 {
				i = len(doors)
				doors = append(doors, &Door{Match: dir.Match, Level: dir.level, Device: ns.Device})
			}
			if !slices.Contains(doors[i].Templates, ns.Name) {
				doors[i].Templates = append(doors[i].Templates, ns.Name)
			}
		}
	}
	return doors
}

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}
