package flowset

import "github.com/sockns/sockns/model"

// possible returns the classes that a peer of a subject can have.
func (c *comparison) possible(s subject, u *universe) Set {
	n := c.counts[s.device]
	set := Set{numbers(classElsewhere, classElsewhere)}
	for _, w := range u.worlds {
		if me := w.resident(s.name, s.device); me != nil && me.Each != "" {
			set = set.Union(Set{numbers(classSibling, classSibling)})
		}
	}
	for _, name := range append([]string{s.name}, u.named...) {
		switch inA, inB := c.a.resident(name, s.device) != nil, c.b.resident(name, s.device) != nil; {
		case inA && inB:
			n.both--
		case inA:
			n.first--
		default:
			n.last--
		}
	}
	for class, exists := range map[int]bool{classSelf: true, classUnmanaged: true, classOther: n.both > 0, classOtherFirst: n.first > 0, classOtherLast: n.last > 0} {
		if exists {
			set = set.Union(Set{numbers(class, class)})
		}
	}
	return set.Union(u.all().Minus(Set{numbers(0, classNamed-1)}))
}

// bindable returns the local addresses that a subject's sockets may have by
// either policy, on some port. On others the bind is refused by both, and what
// connect and accept would say makes no difference.
func (c *comparison) bindable(s subject) Set {
	set := unknown.Union(picked)
	for _, w := range [...]*world{c.a, c.b} {
		n := w.resident(s.name, s.device)
		if allowing(n) {
			return allLocal
		}
		set = set.Union(own(n))
		for i := range n.Bind {
			if r := &n.Bind[i]; r.Action == model.Allow && len(r.Local) > 0 {
				set = set.Union((&list{world: w, n: n}).local(r))
			}
		}
	}
	return set
}

// prune takes points out of a box that no flow has, as long as what is left is
// a box; it returns false if nothing is left.
func prune(b *Box, h model.Hook, classes, bindable Set) bool {
	icmp := protocolSet(func(p model.Protocol) bool { return p == model.ICMP })
	if b[dimPort].Intersect(port0).Empty() { // which stands for no port
		b[dimProtocol] = b[dimProtocol].Minus(icmp)
	}
	if h == model.Bind {
		return !b[dimProtocol].Empty()
	}
	if b[dimProtocol].Intersect(icmp).Empty() {
		b[dimPort] = b[dimPort].Minus(port0)
	}
	b[dimLocal] = b[dimLocal].Intersect(bindable)
	elsewhere := Set{numbers(classElsewhere, classElsewhere)}
	b[dimPeer] = b[dimPeer].Intersect(classes)
	if b[dimPeer].Intersect(elsewhere).Empty() {
		b[dimProtocol] = b[dimProtocol].Intersect(identifying)
	}
	if b[dimProtocol].Intersect(identifying).Empty() {
		b[dimPeer] = b[dimPeer].Intersect(elsewhere)
	}
	if b[dimLocal].Intersect(unknown).Empty() {
		for _, family := range [...]Set{{whole(space4)}, {whole(space6)}} {
			if b[dimLocal].Intersect(family.Union(asPicked(family))).Empty() {
				b[dimAddress] = b[dimAddress].Minus(family)
			}
		}
	}
	for _, family := range [...]Set{{whole(space4)}, {whole(space6)}} {
		if b[dimAddress].Intersect(family).Empty() {
			b[dimLocal] = b[dimLocal].Minus(family).Minus(asPicked(family))
		}
	}
	if b[dimAddress].Minus(unknown).Empty() {
		return false
	}
	for d := range b {
		if b[d].Empty() {
			return false
		}
	}
	return true
}
