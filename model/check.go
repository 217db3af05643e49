package model

import (
	"maps"
	"slices"
)

// deviceRef is the name of a device namespace where it is used.
type deviceRef struct {
	name string
	pos  Position
}

// check finds what is wrong with the whole: names that lead nowhere, cgroups
// claimed twice. What is right but in vain is for package lint to find.
func check(r *reader) {
	r.resolveNames()
	r.claimedTwice()
	r.claimedByTemplate()
	if r.HasErrors() {
		return // what follows asks what the policy means
	}
	r.policy.Tests = r.questions(r.policy.Tests)
}

// resolveNames finds out which names are groups and which are namespaces.
func (r *reader) resolveNames() {
	p := r.policy
	groups := make(map[string]bool, len(p.Groups))
	for i := range p.Groups {
		groups[p.Groups[i].Name] = true
	}
	var known []string // for suggestions, when needed
	resolve := func(list []Peer) {
		for i := range list {
			peer := &list[i]
			if peer.Kind != PeerNamespace {
				continue
			}
			if groups[peer.Name] {
				peer.Kind = PeerGroup
				continue
			}
			if _, ok := r.names[peer.Name]; ok {
				continue
			}
			if known == nil {
				known = append(sortedKeys(r.names), reserved...)
			}
			r.errorf(peer.Pos, "%q is not declared%s (a name is one of a group or of a socket namespace)", peer.Name, suggest(peer.Name, known))
		}
	}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, h := range Hooks {
			for j := range n.Rules(h) {
				resolve(n.Rules(h)[j].Local)
				resolve(n.Rules(h)[j].Peers)
			}
		}
	}
	devices := maps.Clone(r.devices)
	devices[HostDevice] = Position{}
	for _, ref := range r.deviceRefs {
		if _, ok := devices[ref.name]; !ok {
			r.errorf(ref.pos, "device namespace %q is not declared%s (declared: %s)", ref.name, suggest(ref.name, sortedKeys(devices)), oneOf(sortedKeys(devices)))
		}
	}
}

// claimedTwice finds cgroups and units that more than one namespace claims.
func (r *reader) claimedTwice() {
	type claim string
	first := make(map[claim]Member)
	owner := make(map[claim]string)
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		for _, m := range n.Members {
			c := claim(m.String())
			if other, twice := first[c]; twice {
				r.errorf(m.Pos, "%s is claimed twice, by %s at %s too: a socket is in one socket namespace, take it out of one", m, owner[c], other.Pos)
				continue
			}
			first[c], owner[c] = m, n.Name
		}
	}
}

// claimedByTemplate finds patterns that claim what another namespace claims.
// What two different patterns both match shows only in the cgroup tree.
func (r *reader) claimedByTemplate() {
	var templates []*SocketNamespace
	byPattern := make(map[string]*SocketNamespace)
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		if n.Each == "" {
			continue
		}
		if other := byPattern[n.Each]; other != nil {
			r.errorf(n.EachPos, "%s is the pattern of %s at %s too: a socket is in one socket namespace, take it out of one", n.Each, other.Name, other.EachPos)
			continue
		}
		byPattern[n.Each] = n
		templates = append(templates, n)
	}
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		for _, m := range n.Members {
			for _, t := range templates {
				if _, ok := InstanceName(t.Name, t.Each, m.Cgroup); ok {
					r.errorf(m.Pos, "%s is claimed twice, by the pattern of %s at %s too: a socket is in one socket namespace, take it out of one", m, t.Name, t.EachPos)
				}
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
