package flowset

import (
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// A class is who a peer can be to the rules of a namespace: sockets of one
// class are told apart by their addresses at most.
const (
	classElsewhere  = iota // known by its address alone: another machine or device namespace, or a protocol that hides it
	classSelf              // the same socket namespace, of a template the same instance
	classSibling           // another instance of the same template
	classUnmanaged         // claimed by no socket namespace, in no policy
	classOther             // a namespace that no rule names
	classOtherFirst        // one that no rule names, and that the first policy alone has
	classOtherLast         // one that no rule names, and that the last policy alone has
	classNamed             // the first of those that rules name
)

// universe numbers the classes of the peers of one namespace, for one hook of
// one or two policies.
type universe struct {
	device string
	self   string
	named  []string // sorted; the class of the first is classNamed
	worlds []*world // one or two
}

// newUniverse gathers what the rules of a namespace name.
func newUniverse(device, self string, h model.Hook, worlds ...*world) *universe {
	u := &universe{device: device, self: self, worlds: worlds}
	if h == model.Bind {
		return u
	}
	for _, w := range worlds {
		n := w.resident(self, device)
		if n == nil {
			continue
		}
		for _, r := range n.Rules(h) {
			for _, p := range r.Peers {
				if p.Kind != model.PeerNamespace || p.Name == self {
					continue
				}
				if slices.ContainsFunc(worlds, func(w *world) bool { return w.resident(p.Name, device) != nil }) {
					u.named = append(u.named, p.Name)
				}
			}
		}
	}
	slices.Sort(u.named)
	u.named = slices.Compact(u.named)
	return u
}

// all returns all classes.
func (u *universe) all() Set { return Set{numbers(0, classNamed+len(u.named)-1)} }

// class returns the class of a namespace that rules name.
func (u *universe) class(name string) Set {
	if name == u.self {
		return Set{numbers(classSelf, classSibling)}
	}
	if i, ok := slices.BinarySearch(u.named, name); ok {
		return Set{numbers(classNamed+i, classNamed+i)}
	}
	return nil
}

// unmanaged returns the classes that a policy has no namespace for.
func (u *universe) unmanaged(w *world) Set {
	ranges := []Range{numbers(classUnmanaged, classUnmanaged)}
	if len(u.worlds) == 2 {
		if w == u.worlds[0] {
			ranges = append(ranges, numbers(classOtherLast, classOtherLast))
		} else {
			ranges = append(ranges, numbers(classOtherFirst, classOtherFirst))
		}
	}
	if w.resident(u.self, u.device) == nil {
		ranges = append(ranges, numbers(classSelf, classSibling))
	}
	for i, name := range u.named {
		if w.resident(name, u.device) == nil {
			ranges = append(ranges, numbers(classNamed+i, classNamed+i))
		}
	}
	return setOf(ranges...)
}

// classOf returns the class of the other end of a flow.
func (u *universe) classOf(us, them model.End, proto model.Protocol) int {
	if us.Device == "" || us.Device != them.Device || proto != model.TCP && proto != model.UDP {
		return classElsewhere
	}
	name, _, _ := strings.Cut(them.Namespace, "/")
	first, last := u.worlds[0].resident(name, u.device) != nil, u.worlds[len(u.worlds)-1].resident(name, u.device) != nil
	switch {
	case them.Namespace == us.Namespace && them.Namespace != "":
		return classSelf
	case name == u.self && name != "":
		return classSibling
	case !first && !last:
		return classUnmanaged
	}
	if i, ok := slices.BinarySearch(u.named, name); ok {
		return classNamed + i
	}
	switch {
	case first && last:
		return classOther
	case first:
		return classOtherFirst
	}
	return classOtherLast
}
