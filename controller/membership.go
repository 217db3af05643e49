package controller

import (
	"strings"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// membership is what the kernel was told of the cgroups of one device
// namespace. It turns the coming and going of a cgroup into a few elements,
// with nothing compiled and no other rule touched.
type membership struct {
	index   *compiler.Index
	members map[string]compiler.Member // by path
	count   map[string]int             // members of each namespace or instance
	doors   map[string]bool            // paths of doors
	exempt  map[string]compiler.Member // by path
}

func newMembership(p *model.Policy, device string, index *compiler.Index, f compiler.Facts) *membership {
	m := &membership{
		index:   index,
		members: make(map[string]compiler.Member), count: make(map[string]int),
		doors: make(map[string]bool), exempt: make(map[string]compiler.Member),
	}
	names := p.Names()
	for _, member := range f.Members {
		if n := names.Namespace(member.Namespace); n != nil && n.Device == device {
			m.members[member.Path] = member
			m.count[member.Namespace]++
		}
	}
	for _, d := range f.Doors {
		if d.Device != device {
			continue
		}
		m.doors[d.Path] = true
		for _, e := range d.Exempt {
			m.exempt[e.Path] = e
		}
	}
	return m
}

// claims answers which namespace a cgroup belongs to by its path alone. Units,
// which can be anywhere, are not among them.
type claims struct {
	exact     map[string]*model.SocketNamespace
	templates []*model.SocketNamespace
	units     map[string]bool
}

func claimsOf(p *model.Policy) *claims {
	c := &claims{exact: make(map[string]*model.SocketNamespace), units: make(map[string]bool)}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		if n.Each != "" {
			c.templates = append(c.templates, n)
		}
		for _, m := range n.Members {
			if m.Unit != "" {
				c.units[m.Unit] = true
			} else {
				c.exact[m.Cgroup] = n
			}
		}
	}
	return c
}

// of returns the namespace or instance that claims a path, and its device
// namespace; "" if nobody does. sure is false if only a look at the whole tree
// can tell.
func (c *claims) of(path string) (name, device string, sure bool) {
	if c.units[cgroup.UnitOf(path[strings.LastIndexByte(path, '/')+1:])] {
		return "", "", false
	}
	if n := c.exact[path]; n != nil {
		name, device = n.Name, n.Device
	}
	for _, t := range c.templates {
		instance, ok := model.InstanceName(t.Name, t.Each, path)
		if !ok {
			continue
		}
		if name != "" {
			return "", "", false // claimed twice, or in two device namespaces
		}
		name, device = instance, t.Device
	}
	return name, device, true
}

// look compares what the kernel was told of a path with what is there now, and
// returns the elements to delete and to add. sure is false if that takes a
// look at the whole tree. claimed is the namespace that claims the path in this
// device namespace, or "".
func (m *membership) look(path, claimed string, tree *cgroup.Tree) (b nft.Batch, apply func(), sure bool) {
	if m.doors[path] {
		return b, nil, false
	}
	id, err := tree.ID(path)
	there := err == nil
	level := tree.Level(path)
	known, wasMember := m.members[path]
	freed, wasExempt := m.exempt[path]
	now := compiler.Member{Namespace: claimed, Path: path, ID: id, Level: level}
	if there && claimed != "" && !m.index.Serves(claimed, level) {
		return b, nil, false
	}
	if wasMember && known.Namespace == claimed && there && known.ID == id {
		return b, func() {}, true
	}
	join := there && claimed != ""
	leave := wasMember
	if leave {
		for _, p := range m.index.Member(known) {
			b.Delete(m.index.Table, elements(p))
		}
		if m.count[known.Namespace] == 1 && isInstance(known.Namespace) && !(join && claimed == known.Namespace) {
			for _, p := range m.index.Namespace(known.Namespace) {
				b.Delete(m.index.Table, elements(p))
			}
		}
	}
	if wasExempt && (!there || freed.ID != id || claimed != "") {
		b.Delete(m.index.Table, elements(m.index.Exempt(freed)))
	}
	if join {
		if m.count[claimed] == 0 && isInstance(claimed) {
			for _, p := range m.index.Namespace(claimed) {
				b.Add(m.index.Table, elements(p))
			}
		}
		for _, p := range m.index.Member(now) {
			b.Add(m.index.Table, elements(p))
		}
	}
	parent := path[:strings.LastIndexByte(path, '/')]
	free := there && claimed == "" && m.doors[parent]
	if free && !(wasExempt && freed.ID == id) {
		b.Add(m.index.Table, elements(m.index.Exempt(now)))
	}
	return b, func() {
		if leave {
			delete(m.members, path)
			if m.count[known.Namespace]--; m.count[known.Namespace] == 0 {
				delete(m.count, known.Namespace)
			}
		}
		delete(m.exempt, path)
		if join {
			m.members[path] = now
			m.count[claimed]++
		}
		if free {
			m.exempt[path] = now
		}
	}, true
}

func isInstance(name string) bool { return strings.Contains(name, "/") }

func elements(p compiler.Placed) nft.ElementsIn {
	return nft.ElementsIn{Set: p.Set, Elements: []nft.Element{p.Element}}
}
