package flowset

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// icmp is the protocol whose flows have port 0, which stands for none.
var icmp = protocolSet(func(p model.Protocol) bool { return p == model.ICMP })

// elsewhere is the class of a peer that is known by its address alone.
var elsewhere = Set{numbers(classElsewhere, classElsewhere)}

// families are the spaces of a local and of a peer's address that go together.
var families = [...]struct{ local, peer Set }{
	{Set{whole4(space4), whole4(spacePicked4)}, Set{whole4(space4)}},
	{Set{whole(space6), whole(spacePicked6)}, Set{whole(space6)}},
}

// bounds says which points of a hook's domain flows have: the classes that a
// peer can have, and the local addresses that the sockets may have.
type bounds struct {
	hook           model.Hook
	classes, local Set
}

// excluded returns the boxes of a domain in which there is no flow.
func (b bounds) excluded(all Box) []Box {
	var list []Box
	add := func(change func(*Box)) {
		box := all
		change(&box)
		if !box.empty() {
			list = append(list, box)
		}
	}
	add(func(x *Box) { x[dimProtocol], x[dimPort] = icmp, all[dimPort].Minus(port0) })
	if b.hook == model.Bind {
		return list
	}
	add(func(x *Box) { x[dimProtocol], x[dimPort] = all[dimProtocol].Minus(icmp), port0 })
	add(func(x *Box) { x[dimPeer] = all[dimPeer].Minus(b.classes) })
	add(func(x *Box) {
		x[dimProtocol], x[dimPeer] = all[dimProtocol].Minus(identifying), all[dimPeer].Minus(elsewhere)
	})
	add(func(x *Box) { x[dimLocal] = all[dimLocal].Minus(b.local) })
	add(func(x *Box) { x[dimAddress] = unknown }) // a packet has an address
	for i, f := range families {
		other := families[1-i]
		add(func(x *Box) { x[dimLocal], x[dimAddress] = all[dimLocal].Intersect(f.local), other.peer })
	}
	return list
}

// has reports whether there is a flow in a box.
func (b bounds) has(box *Box) bool {
	protocols := box[dimProtocol]
	withNone, withPort := protocols.Intersect(icmp), protocols.Minus(icmp)
	if !box[dimPort].Intersect(port0).Equal(port0) {
		withNone = nil
	}
	if b.hook == model.Bind {
		return !withNone.Empty() || !withPort.Empty()
	}
	if box[dimPort].Equal(port0) {
		withPort = nil
	}
	classes := box[dimPeer].Intersect(b.classes)
	if classes.Intersect(elsewhere).Empty() {
		withNone, withPort = nil, withPort.Intersect(identifying)
	}
	if classes.Empty() || withNone.Empty() && withPort.Empty() {
		return false
	}
	local := box[dimLocal].Intersect(b.local)
	for _, f := range families {
		if !box[dimAddress].Intersect(f.peer).Empty() && !local.Intersect(f.local.Union(unknown)).Empty() {
			return true
		}
	}
	return false
}

// prune takes points out of a box that no flow has, as long as what is left is
// a box; it returns false if no flow is left.
func (b bounds) prune(box *Box) bool {
	if !b.has(box) {
		return false
	}
	for again := true; again; {
		before := *box
		b.cut(box)
		again = !slices.EqualFunc(before[:], box[:], Set.Equal)
	}
	return true
}

// cut takes out what one dimension says of another.
func (b bounds) cut(box *Box) {
	if box[dimPort].Intersect(port0).Empty() { // which stands for no port
		box[dimProtocol] = box[dimProtocol].Minus(icmp)
	}
	if b.hook == model.Bind {
		return
	}
	if box[dimProtocol].Intersect(icmp).Empty() {
		box[dimPort] = box[dimPort].Minus(port0)
	}
	if box[dimPort].Equal(port0) {
		box[dimProtocol] = box[dimProtocol].Intersect(icmp)
	}
	box[dimLocal] = box[dimLocal].Intersect(b.local)
	box[dimPeer] = box[dimPeer].Intersect(b.classes)
	if box[dimPeer].Intersect(elsewhere).Empty() {
		box[dimProtocol] = box[dimProtocol].Intersect(identifying)
	}
	if box[dimProtocol].Intersect(identifying).Empty() {
		box[dimPeer] = box[dimPeer].Intersect(elsewhere)
	}
	for _, f := range families {
		if box[dimLocal].Intersect(f.local.Union(unknown)).Empty() {
			box[dimAddress] = box[dimAddress].Minus(f.peer)
		}
		if box[dimAddress].Intersect(f.peer).Empty() {
			box[dimLocal] = box[dimLocal].Minus(f.local)
		}
	}
}
