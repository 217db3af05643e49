package cgroup

import (
	"strings"

	"github.com/sockns/sockns/model"
)

// query is a policy turned around: from a directory to who wants it. The
// paths and patterns of all namespaces make one tree of nodes that is walked
// in step with the directories, so the cost of a walk does not depend on the
// number of namespaces.
type query struct {
	policy *model.Policy
	root   *node
	units  map[string][]claim // by unit name
}

// claim is a namespace's wish for a cgroup.
type claim struct {
	namespace int // index in Policy.SocketNamespaces
	member    int // index in its Members, or each
}

// each is the member of a claim that comes from a template's pattern.
const each = -1

// node is a place in the tree of wished-for paths.
type node struct {
	literal map[string]*node
	globs   []glob
	claims  []claim
	doors   []int // templates whose members can appear below this node
}

type glob struct {
	pattern string
	*node
}

// newQuery builds the query of a policy.
func newQuery(p *model.Policy) *query {
	q := &query{policy: p, root: &node{}, units: map[string][]claim{}}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for j, m := range n.Members {
			if m.Unit != "" {
				q.units[m.Unit] = append(q.units[m.Unit], claim{i, j})
				continue
			}
			at := q.root
			for _, name := range components(m.Cgroup) {
				at = at.child(name)
			}
			at.claims = append(at.claims, claim{i, j})
		}
		if n.Each != "" {
			q.addPattern(i, n.Each)
		}
	}
	return q
}

// addPattern adds a template's pattern. From the first wildcard on, every
// directory on the way to a match is a door: what is made in it may be, or
// may come to hold, a new instance. The root of the tree never is one, or
// everything that the machine starts would wait at it.
func (q *query) addPattern(template int, pattern string) {
	at, wild := q.root, false
	for _, name := range components(pattern) {
		wild = wild || strings.Contains(name, "*")
		if wild && at != q.root {
			at.doors = append(at.doors, template)
		}
		at = at.child(name)
	}
	at.claims = append(at.claims, claim{template, each})
}

// DoorPatterns returns the patterns of the directories that are doors of a
// template's pattern, unless they belong to a namespace.
func DoorPatterns(pattern string) []string {
	var doors []string
	names, wild := components(pattern), false
	for i, name := range names {
		wild = wild || strings.Contains(name, "*")
		if wild && i > 0 {
			doors = append(doors, "/"+strings.Join(names[:i], "/"))
		}
	}
	return doors
}

// child returns the node below n for one component, and makes it if it is new.
func (n *node) child(name string) *node {
	if strings.Contains(name, "*") {
		for _, g := range n.globs {
			if g.pattern == name {
				return g.node
			}
		}
		g := glob{name, &node{}}
		n.globs = append(n.globs, g)
		return g.node
	}
	if c := n.literal[name]; c != nil {
		return c
	}
	if n.literal == nil {
		n.literal = map[string]*node{}
	}
	c := &node{}
	n.literal[name] = c
	return c
}

// step returns the nodes that a directory called name reaches from others.
func step(from []*node, name string) []*node {
	var to []*node
	for _, n := range from {
		if c := n.literal[name]; c != nil {
			to = append(to, c)
		}
		for _, g := range n.globs {
			if _, ok := model.InstanceName("", g.pattern, name); ok {
				to = append(to, g.node)
			}
		}
	}
	return to
}

// leaves reports whether nothing below some nodes matters.
func leaves(at []*node) bool {
	for _, n := range at {
		if len(n.literal) > 0 || len(n.globs) > 0 || len(n.doors) > 0 {
			return false
		}
	}
	return true
}

// claimed returns who wants a directory: by its path (the nodes it reached)
// and by its name.
func (q *query) claimed(at []*node, name string) []claim {
	var claims []claim
	for _, n := range at {
		claims = append(claims, n.claims...)
	}
	if len(q.units) > 0 {
		claims = append(claims, q.units[UnitOf(name)]...)
	}
	return claims
}

// listed reports whether the children of a directory must be listed: where
// names are enough, looking each one up is cheaper.
func (q *query) listed(at []*node) bool {
	if len(q.units) > 0 {
		return true
	}
	for _, n := range at {
		if len(n.globs) > 0 || len(n.doors) > 0 {
			return true
		}
	}
	return false
}

// UnitOf returns the unit that systemd keeps in a directory of that name. It
// puts a "_" before names that would collide with the kernel's own files
// (memory.service) and takes one off when it reads (cg_unescape).
func UnitOf(directory string) string { return strings.TrimPrefix(directory, "_") }

// components splits an absolute path; the root has none.
func components(path string) []string {
	if path = strings.Trim(path, "/"); path == "" {
		return nil
	}
	return strings.Split(path, "/")
}
