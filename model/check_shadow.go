package model

import "slices"

// shadowed warns of rules that can never match, because one rule before them
// matches all that they do. It never warns of a rule that can match; one that
// only several rules together cover is not found.
func (r *reader) shadowed() {
	p := r.policy
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, h := range Hooks {
			rules := n.Rules(h)
			for j := range rules {
				for k := range rules[:j] {
					if p.ruleCovers(n, &rules[k], &rules[j]) {
						r.warnf(rules[j].Pos, "this rule can never match: rule %d at %s matches all that it does; remove one, or put this one first", k+1, rules[k].Pos)
						break
					}
				}
			}
		}
	}
}

// ruleCovers reports whether a matches whatever b does; both are of one hook.
func (p *Policy) ruleCovers(n *SocketNamespace, a, b *Rule) bool {
	if a.Audit {
		return false // it decides nothing
	}
	for _, proto := range Protocols {
		if b.coversProtocol(proto) && !a.coversProtocol(proto) {
			return false
		}
	}
	return portsCover(a.Ports, b.Ports) && p.localCovers(n, a, b) && p.peersCover(n, a.Peers, b.Peers)
}

func portsCover(a, b []PortRange) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 {
		return false
	}
	for _, r := range b {
		if !slices.ContainsFunc(a, func(s PortRange) bool { return s.First <= r.First && r.Last <= s.Last }) {
			return false
		}
	}
	return true
}

func (p *Policy) localCovers(n *SocketNamespace, a, b *Rule) bool {
	if len(a.Local) == 0 && (len(b.Local) == 0 || len(n.Addresses) == 0) {
		return true
	}
	if len(a.Local) == 0 || len(b.Local) == 0 {
		// Without local, a rule also speaks of the wildcard and of what the
		// kernel is yet to pick.
		return false
	}
	return p.peersCover(n, a.Local, b.Local)
}

// peersCover reports whether the peers of a include those of b. A name covers
// itself alone: who it is depends on where the other end is.
func (p *Policy) peersCover(n *SocketNamespace, a, b []Peer) bool {
	is := func(kind PeerKind, name string) func(Peer) bool {
		return func(q Peer) bool { return q.Kind == kind && q.Name == name }
	}
	if len(a) == 0 || slices.ContainsFunc(a, is(PeerAny, "")) {
		return true
	}
	if len(b) == 0 {
		return false
	}
	var addresses []AddressRange
	for _, q := range a {
		if q.Kind == PeerAddress || q.Kind == PeerGroup {
			addresses = append(addresses, p.PeerAddresses(q, n)...)
		}
	}
	for _, q := range b {
		if q.Kind != PeerAddress && slices.ContainsFunc(a, is(q.Kind, q.Name)) {
			continue
		}
		if q.Kind != PeerAddress && q.Kind != PeerGroup {
			return false
		}
		for _, r := range p.PeerAddresses(q, n) {
			if !slices.ContainsFunc(addresses, func(s AddressRange) bool { return s.Contains(r.First) && s.Contains(r.Last) }) {
				return false
			}
		}
	}
	return true
}
