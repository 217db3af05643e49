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

// check finds what is wrong with the whole: cgroups claimed twice. What is right
// but in vain is for package lint to find.
func (r *reader) check() {
	r.claimedTwice()
	r.claimedByTemplate()
	if r.HasErrors() {
		return // what follows asks what the policy means
	}
	r.policy.Tests = r.questions(r.policy.Tests)
}

// claimedTwice finds cgroups and units that more than one namespace claims.
func (r *reader) claimedTwice() {
	type claim struct{ cgroup, unit string }
	type claimed struct {
		member *Member
		by     *SocketNamespace
	}
	first := make(map[claim]claimed, len(r.policy.SocketNamespaces))
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		for j := range n.Members {
			m := &n.Members[j]
			c := claim{m.Cgroup, m.Unit}
			if other, twice := first[c]; twice {
				r.errorf(m.Pos, "%s is claimed twice, by %s at %s too: a socket is in one socket namespace, take it out of one", m, other.by.Name, other.member.Pos)
				continue
			}
			first[c] = claimed{m, n}
		}
	}
}

// claimedByTemplate finds patterns that claim what another namespace claims.
// What two different patterns both match shows only in the cgroup tree.
func (r *reader) claimedByTemplate() {
	var templates []*SocketNamespace
	byPattern := make(map[string]*SocketNamespace)
	inDevice := make(map[string]int)
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
		if inDevice[n.Device]++; inDevice[n.Device] == MaxTemplates+1 {
			r.errorf(n.EachPos, "%s is one template more than the %d that device namespace %s may have: let one pattern stand for those that say the same", n.Name, MaxTemplates, n.Device)
		}
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
