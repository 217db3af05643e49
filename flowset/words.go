package flowset

import (
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// words puts the sets of one subject's boxes into words.
type words struct {
	c       *comparison
	s       subject
	u       *universe
	h       model.Hook
	classes Set // that a peer can have
}

func (w words) protocols(s Set) []string {
	all := allProtocols
	if w.h == model.Accept {
		all = identifying
	}
	if s.Covers(all) {
		return nil
	}
	var list []string
	for i, p := range model.Protocols {
		if s.Contains(Point{Lo: uint64(i)}) {
			list = append(list, string(p))
		}
	}
	return list
}

func (w words) ports(s Set) []string {
	if s.Covers(allPorts.Minus(port0)) || s.Equal(port0) && w.h != model.Bind {
		return nil
	}
	var list []string
	for _, r := range s {
		list = append(list, model.PortRange{First: uint16(r.First.Lo), Last: uint16(r.Last.Lo)}.String())
	}
	return list
}

// local says on which local addresses; nothing for the namespace's own.
func (w words) local(b Box) []string {
	s := b[dimLocal]
	everything := domain(w.h, w.u)[dimLocal]
	for _, world := range []*world{w.c.b, w.c.a} {
		n := world.resident(w.s.name, w.s.device)
		if n == nil {
			continue
		}
		mine := own(n).Union(unknown).Union(picked).Intersect(everything)
		if w.h != model.Bind {
			mine = mine.Intersect(w.c.bindable(w.s))
		}
		// The families that the box has no peers of are not its fault.
		for _, f := range families {
			if w.h != model.Bind && b[dimAddress].Intersect(f.peer).Empty() {
				mine = mine.Minus(f.local)
			}
		}
		if s.Equal(mine) || s.Equal(mine.Minus(unknown)) {
			return nil
		}
	}
	if s.Equal(everything) || w.h != model.Bind && s.Equal(everything.Intersect(w.c.bindable(w.s))) {
		return []string{"any"}
	}
	var list []string
	addresses := s.Intersect(bound)
	chosen := fromPicked(s.Intersect(picked))
	if w.h == model.Bind {
		if !s.Intersect(unknown).Empty() {
			list = append(list, "the wildcard")
		}
		return append(list, addressWords(addresses)...)
	}
	if addresses.Equal(chosen) {
		return addressWords(addresses)
	}
	list = addressWords(addresses)
	switch {
	case chosen.Covers(bound.Minus(wildcards)) || chosen.Empty() && !s.Intersect(unknown).Empty():
		list = append(list, "what the kernel picks")
	case !chosen.Empty():
		list = append(list, "what the kernel picks of "+strings.Join(addressWords(chosen), ", "))
	}
	return list
}

// fromPicked is the inverse of asPicked.
func fromPicked(s Set) Set {
	t := slices.Clone(s)
	for i := range t {
		t[i].First.Space -= spacePicked4 - space4
		t[i].Last.Space -= spacePicked4 - space4
	}
	return t
}

// addressWords writes addresses as the language does, or those that are left
// out if they are fewer. The wildcard addresses, which no socket has, don't
// tear a range.
func addressWords(s Set) []string {
	if rest := bound.Minus(wildcards).Minus(s); len(rest) > 0 && len(rest) < len(s.Intersect(bound)) {
		return []string{"any but " + strings.Join(addressWords(rest), ", ")}
	}
	var list []string
	for _, r := range s {
		if last, ok := r.Last.next(); !ok || last.Space == space4 && last.Lo > 1<<32-1 {
			if r.First.Hi == 0 && r.First.Lo == 1 {
				r.First.Lo = 0
			}
		}
		if r.First.Space != spaceUnknown {
			list = append(list, model.AddressRange{First: addressOf(r.First), Last: addressOf(r.Last)}.String())
		}
	}
	return list
}

func (w words) peers(b Box) string {
	addresses := b[dimAddress]
	everywhere := addresses.Covers(bound)
	if !everywhere { // of the families that the local addresses have
		rest := bound.Minus(addresses)
		for _, f := range families {
			if b[dimLocal].Intersect(f.local.Union(unknown)).Empty() {
				rest = rest.Minus(f.peer)
			}
		}
		everywhere = rest.Empty()
	}
	who := w.who(b[dimPeer], b[dimProtocol])
	where := strings.Join(addressWords(addresses), ", ")
	switch {
	case everywhere && who == "":
		return "any"
	case everywhere:
		return who
	case who == "":
		return where
	}
	return who + " at " + where
}

// who names the classes of a set, or those that it lacks if they are fewer;
// nothing if it lacks none.
func (w words) who(s Set, protocols Set) string {
	if protocols.Intersect(identifying).Empty() {
		return "" // nobody is known
	}
	in, out := w.names(s), w.names(w.classes.Minus(s))
	switch {
	case len(out) == 0:
		return ""
	case len(out) < len(in):
		return "any but " + strings.Join(out, ", ")
	}
	return strings.Join(in, ", ")
}

func (w words) names(s Set) []string {
	var list []string
	for _, class := range []struct {
		class int
		name  string
	}{
		{classSelf, "self"}, {classSibling, "other instances of " + w.s.name}, {classUnmanaged, "unmanaged"}, {classOther, "other namespaces"},
		{classOtherFirst, "namespaces that go"}, {classOtherLast, "namespaces that come"}, {classElsewhere, "other machines and device namespaces"},
	} {
		if w.classes.Contains(Point{Lo: uint64(class.class)}) && s.Contains(Point{Lo: uint64(class.class)}) {
			list = append(list, class.name)
		}
	}
	for i, name := range w.u.named {
		if s.Contains(Point{Lo: uint64(classNamed + i)}) {
			list = append(list, name)
		}
	}
	return list
}
