package flowset

import "github.com/sockns/sockns/model"

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
	n := w.resident(s.name, s.device)
	if n != nil && len(n.Addresses) == 0 || loopback.Covers(local) {
		return breadth{proto: proto, wide: true}
	}
	return breadth{proto: proto, addresses: w.shared[s]}
}

// shift returns how the ports move that others than a subject may bind.
func (c *comparison) shift(s subject, atA, atB breadth) shift {
	a, b := c.claimsA[s.device][atA], c.claimsB[s.device][atB]
	mineA, mineB := a.only[s.name], b.only[s.name]
	if atA == atB && mineA.Equal(mineB) {
		if all, known := c.shifts[s.device][atA]; known {
			return shift{all.gain.Minus(mineA), all.loss.Minus(mineA)}
		}
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
	for _, proto := range [...]model.Protocol{model.TCP, model.UDP} {
		for _, local := range [...]Set{unknown, loopback} {
			moved := c.shift(s, c.breadth(c.a, s, proto, local), c.breadth(c.b, s, proto, local))
			if !moved.gain.Empty() || !moved.loss.Empty() {
				return true
			}
		}
	}
	return false
}
