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
// claimed twice, rules that can't do what they seem to.
func check(r *reader) {
	r.resolveNames()
	r.claimedTwice()
	r.claimedByTemplate()
	if r.HasErrors() {
		return // what follows asks what the policy means
	}
	r.policy.Tests = r.questions(r.policy.Tests)
	r.unusedGroups()
	r.unreachablePeers()
	r.shadowed()
	r.ambiguousBinds()
	r.unprotectedBirths()
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

// unusedGroups warns of groups that no rule names: a misspelt name elsewhere,
// or a rule that was forgotten.
func (r *reader) unusedGroups() {
	used := make(map[string]bool)
	eachPeer(r.policy, func(_ *SocketNamespace, _ *Rule, p *Peer) { used[p.Name] = true })
	for _, g := range r.policy.Groups {
		if !used[g.Name] {
			r.warnf(g.Pos, "group %s is not used: no rule names it", g.Name)
		}
	}
}

// unreachablePeers warns of peers that can't be recognised: a namespace of
// another device namespace is known by its addresses only.
func (r *reader) unreachablePeers() {
	byName := make(map[string]*SocketNamespace, len(r.policy.SocketNamespaces))
	for i := range r.policy.SocketNamespaces {
		byName[r.policy.SocketNamespaces[i].Name] = &r.policy.SocketNamespaces[i]
	}
	eachPeer(r.policy, func(n *SocketNamespace, rule *Rule, p *Peer) {
		m := byName[p.Name]
		if p.Kind != PeerNamespace || m == nil || len(m.Addresses) > 0 {
			return
		}
		if slices.ContainsFunc(rule.Local, func(l Peer) bool { return l.Pos == p.Pos }) {
			r.warnf(p.Pos, "local is %s, which lists no addresses: it can never match", p.Name)
		} else if m.Device != n.Device {
			r.warnf(p.Pos, "%s is in device namespace %s and lists no addresses, by which it would be recognised from %s: it can never match", p.Name, m.Device, n.Device)
		}
	})
}

func eachPeer(p *Policy, visit func(*SocketNamespace, *Rule, *Peer)) {
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, h := range Hooks {
			rules := n.Rules(h)
			for j := range rules {
				for _, list := range [][]Peer{rules[j].Local, rules[j].Peers} {
					for k := range list {
						visit(n, &rules[j], &list[k])
					}
				}
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
