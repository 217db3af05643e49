package compiler

import (
	"slices"
	"strings"

	"github.com/sockns/sockns/nft"
)

// Placed is an element and the set or map that holds it.
type Placed struct {
	Set     string
	Element nft.Element
}

// Index says which elements a member or an instance stands for in the table of
// one device namespace: all that changes when a cgroup comes or goes. It stays
// valid until the policy changes.
type Index struct {
	Table    string
	policies map[string]policyRef // by namespace or template
	ids      map[string]uint32
	names    map[uint32]string
	levels   map[int]bool // that the table has maps for; true: whatever exists
}

// policyRef is what elements need of a compiled policy: an index lives long,
// and the chains are big.
type policyRef struct {
	name  string
	class uint32
	apart bool // see chains
	// countedUnder is the first namespace that has the chains.
	countedUnder string
}

func (r policyRef) chain(part string) string { return chainName(r.name, part) }

// accept returns the chain that a transport's packets begin the accept list in.
func (r policyRef) accept(t transports) string {
	if !r.apart {
		return r.chain(partAccept)
	}
	return r.chain(partAccept + "." + t.suffix()[1:])
}

// Serves reports whether the table has a place for a member of this socket
// namespace (or instance) at this level, so that it can join without
// compiling anything.
func (ix *Index) Serves(name string, level int) bool {
	if _, ok := ix.policies[templateOf(name)]; !ok || !ix.has(level) {
		return false
	}
	if _, known := ix.ids[name]; known {
		return true
	}
	_, taken := ix.names[ix.id(name)]
	return !taken
}

func (ix *Index) has(level int) bool {
	_, ok := ix.levels[level]
	return ok
}

// Permanent reports whether the table has a place for members at this level
// even if there are none.
func (ix *Index) Permanent(level int) bool { return ix.levels[level] }

// Namespace returns the elements of a socket namespace, template or instance
// itself. Those of an instance have no verdicts.
func (ix *Index) Namespace(name string) []Placed {
	id := ix.id(name)
	key, comment := []nft.Value{identityValue(id)}, fit(name, commentMax)
	if name != templateOf(name) {
		return []Placed{{marksMap, nft.Element{Key: key, Data: markValue(id), Comment: comment}}}
	}
	local := ix.policies[name].chain(partLocal)
	if id&instanceBit != 0 {
		return []Placed{{templatesMap, nft.Element{Key: key, Verdict: jumpTo(nft.VerdictGoto, local), Comment: comment}}}
	}
	return []Placed{
		{namespacesMap, nft.Element{Key: key, Verdict: jumpTo(nft.VerdictJump, local), Comment: comment}},
		{marksMap, nft.Element{Key: key, Data: markValue(id)}},
	}
}

// Member returns the elements of a cgroup of a socket namespace or instance. They
// have no verdicts: one that jumps makes the kernel validate the whole table
// (nft_table_validate), which takes milliseconds where there are thousands.
func (ix *Index) Member(m Member) []Placed {
	class, id, key := ix.policies[templateOf(m.Namespace)].class, identityValue(ix.id(m.Namespace)), cgroupValue(m.ID, m.Path)
	return []Placed{
		{identityMap(m.Level), nft.Element{Key: []nft.Value{key}, Data: id, Comment: fit(m.Namespace+" "+m.Path, commentMax)}},
		{classMap(m.Level), nft.Element{Key: []nft.Value{key}, Data: markValue(class)}},
		{selfSet(m.Level), nft.Element{Key: []nft.Value{id, key}}},
	}
}

// Exempt returns the element of a cgroup at a level that a door lets pass
// because nobody claims it.
func (ix *Index) Exempt(m Member) Placed {
	return Placed{unmanagedSet(m.Level), nft.Element{Key: []nft.Value{cgroupValue(m.ID, m.Path)}, Comment: fit(m.Path, commentMax)}}
}

// Identity returns the number that stands for a namespace or instance in the kernel.
func (ix *Index) Identity(name string) uint32 { return ix.id(name) }

// Name returns the namespace or instance that had an identity when the policy
// was compiled.
func (ix *Index) Name(identity uint32) (string, bool) {
	name, ok := ix.names[identity]
	return name, ok
}

// Sharing returns the namespaces and instances that have the same compiled
// rules as one of them, sorted. Of a template with instances, these count.
func (ix *Index) Sharing(name string) []string {
	rules, known := ix.policies[templateOf(name)]
	var list []string
	for other := range ix.ids {
		if ref, ok := ix.policies[templateOf(other)]; known && ok && ref.name == rules.name {
			list = append(list, other)
		}
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Clone(list), func(n string) bool {
		i, _ := slices.BinarySearch(list, n+"/")
		return i < len(list) && strings.HasPrefix(list[i], n+"/") // a template: nobody is it
	})
}

// CountedUnder returns the namespace or template whose counters have the packets
// of a namespace or instance: of those that share their rules the first by name.
func (ix *Index) CountedUnder(name string) string { return ix.policies[templateOf(name)].countedUnder }

// Unmanaged reports whether an identity is that of the sockets that no socket
// namespace claims.
func Unmanaged(identity uint32) bool { return identity == unmanagedIdentity }

// id returns the identity of a namespace, which for an instance that was not
// there when the policy was compiled is the one that its name asks for.
func (ix *Index) id(name string) uint32 {
	if id, ok := ix.ids[name]; ok {
		return id
	}
	return instanceIdentity(ix.ids[templateOf(name)], name, 0)
}

func newIndex(r *resolver, policies map[string]*chains, levels []int, always map[int]bool) *Index {
	ix := &Index{
		Table: TableName, ids: r.ids,
		policies: make(map[string]policyRef, len(policies)),
		names:    r.named,
		levels:   make(map[int]bool),
	}
	if ix.names == nil {
		ix.names = make(map[uint32]string, len(r.ids))
		for name, id := range r.ids {
			ix.names[id] = name
		}
	}
	for _, l := range levels {
		ix.levels[l] = always[l]
	}
	class := classes(policies, r.passes.has(PassShare))
	first := make(map[*chains]*string) // of the namespaces that have them
	byName := make(map[string]*string) // the same by the chains' name
	for name, c := range policies {
		f := first[c]
		if f == nil {
			if f = byName[c.name]; f == nil {
				f = &name
				byName[c.name] = f
			}
			first[c] = f
		}
		*f = min(*f, name)
	}
	for name, c := range policies {
		ix.policies[name] = policyRef{name: c.name, class: class(name, c), apart: c.apart, countedUnder: *first[c]}
	}
	return ix
}
