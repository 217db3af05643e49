package lint

import (
	"fmt"
	"slices"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/model"
)

// entries finds peers and local addresses of a rule that no flow has, and
// reports whether there are any. speaks says whether the rule matches any flow.
func (c *checker) entries(n *model.SocketNamespace, l *flowset.List, r *model.Rule, speaks bool) bool {
	if speaks && len(r.Peers) < 2 && len(r.Local) < 2 {
		return false
	}
	dead := false
	for _, p := range r.Peers {
		one := *r
		one.Peers = []model.Peer{p}
		if p.Kind == model.PeerAny || l.Speaks(&one) {
			continue
		}
		dead = true
		why, remedy := c.unmet(n, r, p)
		c.add(Finding{ID: UnreachablePeer, Pos: p.Pos, Namespace: n.Name, Rule: r.Words(), Message: why, Remedy: remedy})
	}
	if dead {
		return true // of its local addresses nothing more is known
	}
	for _, p := range r.Local {
		one := *r
		one.Local = []model.Peer{p}
		if p.Kind == model.PeerAny || l.Speaks(&one) {
			continue
		}
		dead = true
		why, remedy := c.unbound(n, r, p)
		c.add(Finding{ID: UnreachableLocal, Pos: p.Pos, Namespace: n.Name, Rule: r.Words(), Message: why, Remedy: remedy})
	}
	return dead
}

// unmet says why no flow of a rule has a peer.
func (c *checker) unmet(n *model.SocketNamespace, r *model.Rule, p model.Peer) (why, remedy string) {
	identity := len(r.Protocols) == 0 || slices.Contains(r.Protocols, model.TCP) || slices.Contains(r.Protocols, model.UDP)
	m := c.names[p.Name]
	named := p.Kind == model.PeerNamespace
	switch {
	case named && len(m.Addresses) == 0 && m.Device != n.Device:
		return fmt.Sprintf("%s is in device namespace %s and lists no addresses, by which it would be recognised from %s: it can never match", p, m.Device, n.Device),
			fmt.Sprintf("give %s addresses, or name others here", p)
	case named && len(m.Addresses) == 0 && !identity:
		return fmt.Sprintf("%s lists no addresses, by which alone it would be recognised with %s: it can never match", p, model.TrafficWords(r.Protocols, nil)),
			fmt.Sprintf("give %s addresses, or name others here", p)
	case !identity && (p.Kind == model.PeerSelf || p.Kind == model.PeerUnmanaged):
		return fmt.Sprintf("the kernel does not show whose socket is at the other end with %s: %s can never match", model.TrafficWords(r.Protocols, nil), p),
			"name addresses"
	case len(r.Local) > 0:
		return fmt.Sprintf("no flow between %s and the rule's local addresses can be: they are of different families, or no socket of %s has them", p, n.Name),
			"name addresses of one family that the namespace has"
	}
	return fmt.Sprintf("no flow of %s can have %s at the other end: the addresses of both are of different families", n.Name, p),
		"name addresses of the family that the namespace has"
}

// unbound says why no socket that a rule speaks of has a local address.
func (c *checker) unbound(n *model.SocketNamespace, r *model.Rule, p model.Peer) (why, remedy string) {
	m := c.names[p.Name]
	if p.Kind == model.PeerSelf {
		m = n
	}
	switch {
	case m != nil && len(m.Addresses) == 0:
		return fmt.Sprintf("local is %s, which lists no addresses: it can never match", p), fmt.Sprintf("give %s addresses, or leave local out", m.Name)
	case p.Kind == model.PeerAddress && p.Address.First == p.Address.Last && p.Address.First.IsUnspecified():
		return fmt.Sprintf("local is %s, which is no address of a socket: it can never match", p), "leave local out: a rule without it speaks of the wildcard too"
	case r.Hook == model.Accept:
		return fmt.Sprintf("no socket of %s can be on %s: it is none of its addresses, and no bind rule allows it", n.Name, p),
			fmt.Sprintf("add it to the addresses of %s, or allow it by a bind rule with local", n.Name)
	}
	return fmt.Sprintf("no flow of the rule has %s as its local address: its peers are of another family", p), "name addresses of one family"
}
