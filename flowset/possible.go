package flowset

import "github.com/sockns/sockns/model"

// possible returns the classes that a peer of a subject can have.
func (c *comparison) possible(s subject, u *universe) Set {
	n := c.counts[s.device]
	set := elsewhere
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
	var set Set
	for _, w := range [...]*world{c.a, c.b} {
		n := w.resident(s.name, s.device)
		if allowing(n) {
			return allLocal
		}
		set = set.Union(w.mayHave(n))
	}
	return set
}

// mayHave returns the local addresses that a namespace's sockets may have, on
// some port.
func (w *world) mayHave(n *model.SocketNamespace) Set {
	set := unknown.Union(picked).Union(own(n))
	for i := range n.Bind {
		if r := &n.Bind[i]; r.Action == model.Allow && len(r.Local) > 0 {
			set = set.Union((&list{world: w, n: n}).local(r))
		}
	}
	return set
}
