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
				if b := c.claimsB[s.device][at]; b != nil {
					c.shifts[s.device][at] = shift{b.all.Minus(a.all), a.all.Minus(b.all)}
				}
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
