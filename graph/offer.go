package graph

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// offer is traffic that one hook of a namespace may allow, deny rules left
// aside. Offers only tell which pairs need not be looked at.
type offer struct {
	protocols []model.Protocol
	ports     []model.PortRange // empty: all
	anybody   bool
	names     []string
	addresses Ranges
}

// anything is what an end without rules offers.
var anything = []offer{{protocols: model.Protocols[:], anybody: true}}

func (b *builder) offers(n *model.SocketNamespace, h model.Hook) []offer {
	if d := n.Default.For(h); n.Mode == model.Audit || d != nil && d.Action == model.Allow {
		return anything
	}
	var list []offer
	for i := range n.Rules(h) {
		r := &n.Rules(h)[i]
		if r.Action != model.Allow {
			continue
		}
		o := offer{protocols: r.Protocols, ports: r.Ports, anybody: len(r.Peers) == 0}
		if len(o.protocols) == 0 {
			o.protocols = model.Protocols[:]
		}
		var addresses []model.AddressRange
		for _, peer := range r.Peers {
			switch peer.Kind {
			case model.PeerAny, model.PeerUnmanaged:
				o.anybody = true
			case model.PeerNamespace:
				o.names = append(o.names, peer.Name)
				addresses = append(addresses, b.policy.PeerAddresses(peer, n)...)
			default:
				addresses = append(addresses, b.policy.PeerAddresses(peer, n)...)
			}
		}
		o.addresses = normal(addresses)
		list = append(list, o)
	}
	if h == model.Accept {
		// No rule decides where the kernel does not show who receives; see docs/limits.md.
		list = append(list, offer{protocols: []model.Protocol{model.SCTP, model.UDPLite, model.ICMP}, anybody: true})
	}
	return list
}

// mayMeet reports whether there can be an edge. It never misses one.
func mayMeet(from, to *end) bool {
	for i := range from.connect {
		c := &from.connect[i]
		if c.speaksOf(to) {
			return true // allowed by both, or one-sided
		}
		if !c.admits(to) {
			continue
		}
		for j := range to.accept {
			if a := &to.accept[j]; a.admits(from) && c.overlaps(a) {
				return true
			}
		}
	}
	return slices.ContainsFunc(to.accept, func(a offer) bool { return a.speaksOf(from) })
}

func (o *offer) speaksOf(e *end) bool { return e.ns != nil && slices.Contains(o.names, e.ns.Name) }

func (o *offer) admits(e *end) bool {
	if o.anybody || o.speaksOf(e) || e.ns == nil {
		return true
	}
	return len(o.addresses) > 0 && (e.anywhere() || o.addresses.meets(e.node.Addresses) || o.addresses.meets(loopback))
}

// anywhere reports whether sockets may have addresses that are not the
// namespace's own.
func (e *end) anywhere() bool {
	return len(e.ns.Addresses) == 0 || e.node.Audit ||
		slices.ContainsFunc(e.ns.Bind, func(r model.Rule) bool { return r.Action == model.Allow && len(r.Local) > 0 })
}

func (o *offer) overlaps(other *offer) bool {
	ports := len(o.ports) == 0 || len(other.ports) == 0 || slices.ContainsFunc(o.ports, func(a model.PortRange) bool {
		return slices.ContainsFunc(other.ports, func(b model.PortRange) bool { return a.First <= b.Last && b.First <= a.Last })
	})
	return ports && slices.ContainsFunc(o.protocols, func(p model.Protocol) bool { return slices.Contains(other.protocols, p) })
}

// meets reports whether two normal sets have an address in common.
func (r Ranges) meets(s Ranges) bool {
	for i, j := 0, 0; i < len(r) && j < len(s); {
		switch {
		case r[i].Last.Less(s[j].First):
			i++
		case s[j].Last.Less(r[i].First):
			j++
		default:
			return true
		}
	}
	return false
}
