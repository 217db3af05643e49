package compiler

import (
	"hash/fnv"
	"maps"
	"slices"
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

// The identity of an instance of a template begins with the template's, so that
// one element of a map and one match stand for all instances, and a new one
// needs no verdict.
const (
	instanceBit   uint32 = 1 << 31
	instanceShift        = 22 // bits that tell the instances of a template apart
	templateMask         = ^uint32(1<<instanceShift - 1)
)

// The templates of a device namespace have numbers enough.
var _ [1<<(31-instanceShift) - model.MaxTemplates]struct{}

// The classes number policies as identities number namespaces: skb->mark is the
// class of the socket's policy while a packet is in the table. What has markKept
// set says that the mark which the packet came with is kept aside.
const (
	classBits        = 1<<31 - 1
	markKept  uint32 = 1 << 31
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
	named := len(f.Missing) > 0 // somebody looks for plain namespaces
	spaces := make([]*space, 0, len(p.SocketNamespaces))
	room := make([]space, len(p.SocketNamespaces))
	add := func(name string, source *model.SocketNamespace) *space {
		if len(room) == 0 {
			room = make([]space, 64)
		}
		s := &room[0]
		room = room[1:]
		s.name, s.source = name, source
		if named || source.Each != "" {
			byName[name] = s
		}
		spaces = append(spaces, s)
		return s
	}
	instances := make(map[string][]Member) // of a template
	plain := make(map[string][]Member, len(f.Members))
	for i, end := 0, 0; i < len(f.Members); i = end {
		m := f.Members[i]
		for end = i + 1; end < len(f.Members) && f.Members[end].Namespace == m.Namespace; end++ {
		}
		all := f.Members[i:end:end]
		if t := templateOf(m.Namespace); t != m.Namespace {
			instances[t] = append(instances[t], all...)
		} else if before := plain[m.Namespace]; before != nil {
			plain[m.Namespace] = append(before, all...)
		} else {
			plain[m.Namespace] = all
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
	var templates, names, instances []string
	for _, s := range spaces {
		switch {
		case s.name != s.source.Name:
			instances = append(instances, s.name)
		case s.source.Each != "":
			templates = append(templates, s.name)
		default:
			names = append(names, s.name)
		}
	}
	ids := make(map[string]uint32, len(spaces))
	number(ids, templates, func(name string, try uint32) uint32 {
		return instanceBit | (hashOf(name)+try)<<instanceShift
	})
	number(ids, names, func(name string, try uint32) uint32 {
		return firstIdentity + (hashOf(name)+try)%(instanceBit-firstIdentity)
	})
	number(ids, instances, func(name string, try uint32) uint32 {
		return instanceIdentity(ids[templateOf(name)], name, try)
	})
	return ids
}

// classes numbers the policies of namespaces and templates, and returns what
// tells their numbers. Where policies are shared, what has other rules has another
// class; where each namespace has its own, the class stays.
func classes(policies map[string]*chains, shared bool) func(name string, c *chains) uint32 {
	byKey := make(map[string]uint32)
	if shared {
		for c := range distinct(policies) {
			byKey[c.name] = 1
		}
	} else {
		for name := range policies {
			byKey[name] = 1
		}
	}
	number(byKey, slices.Collect(maps.Keys(byKey)), func(k string, try uint32) uint32 { return 1 + (hashOf(k)+try)%classBits })
	return func(name string, c *chains) uint32 {
		if shared {
			return byKey[c.name]
		}
		return byKey[name]
	}
}

// number gives each name the first number that is not taken.
func number(numbers map[string]uint32, names []string, attempt func(name string, try uint32) uint32) {
	sort.Strings(names)
	taken := make(map[uint32]bool, len(names))
	for _, name := range names {
		try := uint32(0)
		for taken[attempt(name, try)] {
			try++
		}
		numbers[name] = attempt(name, try)
		taken[numbers[name]] = true
	}
}

// instanceIdentity returns an identity that the name of an instance asks for.
func instanceIdentity(template uint32, name string, try uint32) uint32 {
	return template | (1 + (hashOf(name)+try)%(1<<instanceShift-1))
}

func hashOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}
