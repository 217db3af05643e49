package compiler

import (
	"hash/fnv"
	"sort"

	"github.com/sockns/sockns/model"
)

// The identities below firstIdentity are not socket namespaces. They are
// values of skb->priority, see docs/architecture.md.
const (
	unmanagedIdentity uint32 = 0 // a socket that nobody claims
	loopedIdentity    uint32 = 1 // a multicast packet looped back: its sender is unknown
	remoteIdentity    uint32 = 2 // a packet that did not come from lo
	firstIdentity     uint32 = 0x100
)

// space is a socket namespace of one device namespace as the kernel gets it: a
// namespace of the policy, an instance of a template, or a template itself,
// which has no members but keeps its chains loaded for instances to come.
type space struct {
	name    string
	source  *model.SocketNamespace
	members []Member
	missing []Missing
}

// spacesOf lists the spaces of a device namespace: in the order of the
// policy, the instances of a template after it, sorted by name.
func spacesOf(p *model.Policy, device string, f Facts) []*space {
	byName := make(map[string]*space)
	var spaces []*space
	add := func(name string, source *model.SocketNamespace) *space {
		s := &space{name: name, source: source}
		byName[name] = s
		spaces = append(spaces, s)
		return s
	}
	instances := make(map[string][]Member) // of a template
	plain := make(map[string][]Member)
	for _, m := range f.Members {
		if t := templateOf(m.Namespace); t != m.Namespace {
			instances[t] = append(instances[t], m)
		} else {
			plain[m.Namespace] = append(plain[m.Namespace], m)
		}
	}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		if n.Device != device {
			continue
		}
		add(n.Name, n).members = plain[n.Name]
		ms := instances[n.Name]
		sort.SliceStable(ms, func(i, j int) bool { return ms[i].Namespace < ms[j].Namespace })
		for _, m := range ms {
			s := byName[m.Namespace]
			if s == nil {
				s = add(m.Namespace, n)
			}
			s.members = append(s.members, m)
		}
	}
	for _, m := range f.Missing {
		if s := byName[m.Namespace]; s != nil {
			s.missing = append(s.missing, m)
		}
	}
	return spaces
}

func templateOf(name string) string {
	for i := range name {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return name
}

// identities numbers the spaces. The number is a hash of the name, so that it
// stays the same when others come and go; the few that collide move on to
// the next free one in the order of their names.
func identities(spaces []*space) map[string]uint32 {
	names := make([]string, len(spaces))
	for i, s := range spaces {
		names[i] = s.name
	}
	sort.Strings(names)
	ids := make(map[string]uint32, len(names))
	taken := make(map[uint32]bool, len(names))
	for _, name := range names {
		id := identityOf(name)
		for id < firstIdentity || taken[id] {
			id++
		}
		taken[id], ids[name] = true, id
	}
	return ids
}

// identityOf returns the identity that a name asks for.
func identityOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}
