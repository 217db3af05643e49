package flowset

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// comparison is two policies whose answers are compared.
type comparison struct {
	a, b *world
	// The claims on ports, by device namespace.
	claimsA, claimsB map[string]map[breadth]*claims
	shifts           map[string]map[breadth]shift
	counts           map[string]counts
}

// counts are how many namespaces of a device namespace are in which policy.
type counts struct{ both, first, last int }

// subject is whose sockets are asked about: those of a namespace of either
// policy in a device namespace.
type subject struct{ name, device string }

func newComparison(a, b *model.Policy) *comparison {
	c := &comparison{
		a: newWorld(a), b: newWorld(b), counts: make(map[string]counts),
		claimsA: make(map[string]map[breadth]*claims), claimsB: make(map[string]map[breadth]*claims),
		shifts: make(map[string]map[breadth]shift),
	}
	for _, s := range c.subjects() {
		n := c.counts[s.device]
		switch inA, inB := c.a.resident(s.name, s.device) != nil, c.b.resident(s.name, s.device) != nil; {
		case inA && inB:
			n.both++
		case inA:
			n.first++
		default:
			n.last++
		}
		c.counts[s.device] = n
		if c.claimsA[s.device] == nil {
			c.claimsA[s.device], c.claimsB[s.device] = c.a.claimed(s.device), c.b.claimed(s.device)
			c.shifts[s.device] = make(map[breadth]shift)
			for at, a := range c.claimsA[s.device] {
				b := c.claimsB[s.device][at]
				c.shifts[s.device][at] = shift{b.all.Minus(a.all), a.all.Minus(b.all)}
			}
		}
	}
	return c
}

// subjects lists all subjects, in the order of the policies.
func (c *comparison) subjects() []subject {
	var list []subject
	for i := range c.a.policy.SocketNamespaces {
		n := &c.a.policy.SocketNamespaces[i]
		list = append(list, subject{n.Name, n.Device})
	}
	for i := range c.b.policy.SocketNamespaces {
		if n := &c.b.policy.SocketNamespaces[i]; c.a.resident(n.Name, n.Device) == nil {
			list = append(list, subject{n.Name, n.Device})
		}
	}
	return list
}

// pair is what two policies answer.
type pair struct{ a, b int }

func (p pair) label() int                    { return (p.a+1)<<8 | (p.b + 1) }
func pairOf(label int) pair                  { return pair{label>>8 - 1, label&0xff - 1} }
func (p pair) differ() bool                  { return p.a != p.b }
func (p pair) unnamed() bool                 { return p.a == labelUnnamed || p.b == labelUnnamed }
func allowing(n *model.SocketNamespace) bool { return n == nil || n.Mode == model.Audit }

// enforced returns the clauses of what a namespace's hook really refuses.
func enforced(w *world, u *universe, h model.Hook, n *model.SocketNamespace) []clause {
	if allowing(n) {
		n = nil
	}
	return w.clauses(u, h, n)
}

// differences returns the boxes in which the answers of a hook differ, with the
// labels of pairs. No two boxes overlap, and no two could be one.
func (c *comparison) differences(s subject, h model.Hook) (*universe, []Labeled) {
	u := newUniverse(s.device, s.name, h, c.a, c.b)
	na, nb := c.a.resident(s.name, s.device), c.b.resident(s.name, s.device)
	first, last := enforced(c.a, u, h, na), enforced(c.b, u, h, nb)
	moved := h == model.Bind && c.claimsMoved(s)
	if !moved && slices.EqualFunc(first, last, sameClause) {
		return u, nil
	}
	space := newSpace(domain(h, u))
	label := func(c clause) int { return c.label }
	both := space.apply(space.diagram(first, label), space.diagram(last, label), func(a, b int) int { return pair{a, b}.label() })
	found := space.boxes(both, func(l int) bool {
		p := pairOf(l)
		return p.differ() || p.unnamed() && moved
	})
	if h == model.Bind {
		found = c.nameErrors(s, found)
	}
	flows := bounds{h, c.possible(s, u), c.bindable(s)}
	kept := found[:0]
	for _, b := range found {
		if flows.prune(&b.Box) {
			kept = append(kept, b)
		}
	}
	return u, merge(kept)
}

func sameClause(a, b clause) bool {
	return a.label == b.label && slices.EqualFunc(a.box[:], b.box[:], Set.Equal)
}

// nameErrors splits the boxes of unnamed denials into those of EADDRINUSE and
// of EACCES.
func (c *comparison) nameErrors(s subject, boxes []Labeled) []Labeled {
	var out []Labeled
	for _, b := range boxes {
		p := pairOf(b.Label)
		if !p.unnamed() {
			out = append(out, b)
			continue
		}
		for _, part := range zones(b.Box[dimLocal]) {
			piece := b
			piece.Box[dimLocal] = part
			rest := b.Box[dimProtocol].Minus(identifying)
			if !rest.Empty() {
				piece.Box[dimProtocol] = rest
				out = appendNamed(out, piece, p, nil, nil)
			}
			for _, proto := range [...]model.Protocol{model.TCP, model.UDP} {
				piece.Box[dimProtocol] = protocolSet(func(q model.Protocol) bool { return q == proto }).Intersect(b.Box[dimProtocol])
				if !piece.Box[dimProtocol].Empty() {
					out = c.appendTaken(out, piece, p, s, proto)
				}
			}
		}
	}
	return out
}

// appendTaken appends the parts of a box of one protocol and one part of the
// local addresses: the wildcard, loopback, or neither.
func (c *comparison) appendTaken(out []Labeled, b Labeled, p pair, s subject, proto model.Protocol) []Labeled {
	local := b.Box[dimLocal]
	atA, atB := c.breadth(c.a, s, proto, local), c.breadth(c.b, s, proto, local)
	if p.a == p.b { // only what moves matters, which is little
		moved := c.shift(s, atA, atB)
		ports := b.Box[dimPort]
		for _, part := range []struct {
			ports Set
			pair
		}{
			{ports.Intersect(moved.gain), pair{labelOf(model.EACCES), labelOf(model.EADDRINUSE)}},
			{ports.Intersect(moved.loss), pair{labelOf(model.EADDRINUSE), labelOf(model.EACCES)}},
		} {
			if b.Box[dimPort], b.Label = part.ports, part.label(); !part.ports.Empty() {
				out = append(out, b)
			}
		}
		return out
	}
	return appendNamed(out, b, p, c.claimsA[s.device][atA].but(s.name), c.claimsB[s.device][atB].but(s.name))
}

// breadth says whose claims count at a part of the local addresses.
func (c *comparison) breadth(w *world, s subject, proto model.Protocol, local Set) breadth {
	wide := loopback.Covers(local)
	if local.Equal(unknown) {
		n := w.resident(s.name, s.device)
		wide = n != nil && len(n.Addresses) == 0
	}
	return breadth{proto, wide}
}

// shift returns how the ports move that others than a subject may bind.
func (c *comparison) shift(s subject, atA, atB breadth) shift {
	a, b := c.claimsA[s.device][atA], c.claimsB[s.device][atB]
	mineA, mineB := a.only[s.name], b.only[s.name]
	if atA == atB && mineA.Equal(mineB) {
		all := c.shifts[s.device][atA]
		return shift{all.gain.Minus(mineA), all.loss.Minus(mineA)}
	}
	takenA, takenB := a.but(s.name), b.but(s.name)
	return shift{takenB.Minus(takenA), takenA.Minus(takenB)}
}

// appendNamed appends the parts of a box in which the answers differ once an
// unnamed denial is EADDRINUSE at taken ports and EACCES at others.
func appendNamed(out []Labeled, b Labeled, p pair, takenA, takenB Set) []Labeled {
	ports := b.Box[dimPort]
	for _, a := range named(p.a, ports, takenA) {
		for _, z := range named(p.b, ports, takenB) {
			both := pair{a.label, z.label}
			if b.Box[dimPort] = a.ports.Intersect(z.ports); both.differ() && !b.Box[dimPort].Empty() {
				b.Label = both.label()
				out = append(out, b)
			}
		}
	}
	return out
}

type namedPorts struct {
	label int
	ports Set
}

func named(label int, ports, taken Set) []namedPorts {
	if label != labelUnnamed {
		return []namedPorts{{label, ports}}
	}
	return []namedPorts{{labelOf(model.EADDRINUSE), ports.Intersect(taken)}, {labelOf(model.EACCES), ports.Minus(taken)}}
}

// claimsMoved reports whether the ports that others may bind are not the same
// in both policies, or count elsewhere.
func (c *comparison) claimsMoved(s subject) bool {
	for at := range c.claimsA[s.device] {
		if moved := c.shift(s, at, at); !moved.gain.Empty() || !moved.loss.Empty() {
			return true
		}
	}
	na, nb := c.a.resident(s.name, s.device), c.b.resident(s.name, s.device)
	return na != nil && nb != nil && (len(na.Addresses) == 0) != (len(nb.Addresses) == 0)
}
