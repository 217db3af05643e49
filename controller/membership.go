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
	count   map[string]int             // members of each namespace or instance that has any
	levels  map[int]int                // members at each level
	doors   map[string]bool            // paths of doors
	exempt  map[string]compiler.Member // by path
}

func newMembership(p *model.Policy, device string, index *compiler.Index, f compiler.Facts) *membership {
	m := &membership{
		index:   index,
		members: make(map[string]compiler.Member), count: make(map[string]int), levels: make(map[int]int),
		doors: make(map[string]bool), exempt: make(map[string]compiler.Member),
	}
	names := p.Names()
	for _, member := range f.Members {
		if n := names.Namespace(member.Namespace); n != nil && n.Device == device {
			m.members[member.Path] = member
			m.count[member.Namespace]++
			m.levels[member.Level]++
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

// look compares what the kernel was told of a path with what is there now, adds
// the elements to delete and to add to a batch, and takes the kernel to have
// been told. It returns false, and has changed nothing, if that takes a look at
// the whole tree. by is who claims the path in this device namespace.
func (m *membership) look(b *nft.Batch, path string, by claim, tree *cgroup.Tree) bool {
	if m.doors[path] {
		return false
	}
	id, owner, err := tree.Stat(path)
	there := err == nil
	if by.unit && owner != 0 {
		by.namespace = ""
	}
	level := tree.Level(path)
	known, wasMember := m.members[path]
	freed, wasExempt := m.exempt[path]
	now := compiler.Member{Namespace: by.namespace, Path: path, ID: id, Level: level}
	join := there && by.namespace != ""
	if join && !m.index.Serves(by.namespace, level) {
		return false
	}
	if wasMember && join && known == now {
		return true
	}
	if wasMember && !join && m.levels[level] == 1 && !m.index.Permanent(level) {
		return false
	}
	if wasMember {
		m.levels[level]--
		for _, p := range m.index.Member(known) {
			b.Delete(m.index.Table, elements(p))
		}
		delete(m.members, path)
		m.count[known.Namespace]--
		if stays := join && by.namespace == known.Namespace; m.count[known.Namespace] == 0 && !stays {
			delete(m.count, known.Namespace)
			if isInstance(known.Namespace) {
				for _, p := range m.index.Namespace(known.Namespace) {
					b.Delete(m.index.Table, elements(p))
				}
			}
		}
	}
	parent := path[:strings.LastIndexByte(path, '/')]
	free := there && by.namespace == "" && m.doors[parent]
	if wasExempt && !(free && freed.ID == id) {
		b.Delete(m.index.Table, elements(m.index.Exempt(freed)))
		delete(m.exempt, path)
	}
	if free && !(wasExempt && freed.ID == id) {
		b.Add(m.index.Table, elements(m.index.Exempt(now)))
		m.exempt[path] = now
	}
	if join {
		if _, has := m.count[by.namespace]; !has && isInstance(by.namespace) {
			for _, p := range m.index.Namespace(by.namespace) {
				b.Add(m.index.Table, elements(p))
			}
		}
		for _, p := range m.index.Member(now) {
			b.Add(m.index.Table, elements(p))
		}
		m.members[path] = now
		m.levels[level]++
		m.count[by.namespace]++
	}
	return true
}

func isInstance(name string) bool { return strings.Contains(name, "/") }

func elements(p compiler.Placed) nft.ElementsIn {
	return nft.ElementsIn{Set: p.Set, Elements: []nft.Element{p.Element}}
}
