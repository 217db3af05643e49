package flowset

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sockns/sockns/model"
)

// Ambiguity is what rules let two socket namespaces of a device namespace bind
// both: each combination of these protocols, ports and addresses.
type Ambiguity struct {
	// First is asked first: it is before Second in the files. Rules are
	// indexes in their lists of bind rules.
	First, Second         *model.SocketNamespace
	FirstRule, SecondRule int
	Protocols             []model.Protocol
	Ports                 []model.PortRange
	Addresses             []model.AddressRange // empty: all that there are
}

// owned is a part of what a rule lets a namespace bind.
type owned struct {
	n     *model.SocketNamespace
	order int // of the namespace
	rule  int
	ports Range
	box   *Box
}

// Ambiguous returns the namespaces that rules let bind what an earlier one may
// bind too, each once, in the order of the policy. Loopback, which belongs to
// every namespace, does not count.
func (a *Lists) Ambiguous() []Ambiguity {
	found := make(map[int]Ambiguity)
	places := make(map[string]*places)
	for _, c := range a.owned() {
		at := places[c.n.Device]
		if at == nil {
			at = newPlaces()
			places[c.n.Device] = at
		}
		at.meet(c, func(other owned) {
			first, second := other, c
			if second.order < first.order {
				first, second = second, first
			}
			if _, known := found[second.order]; known || first.order == second.order {
				return
			}
			if both, ok := first.box.intersect(second.box); ok {
				found[second.order] = ambiguity(first, second, both)
			}
		})
	}
	var list []Ambiguity
	for i := range a.c.a.policy.SocketNamespaces {
		if x, ok := found[i]; ok {
			list = append(list, x)
		}
	}
	return list
}

func ambiguity(first, second owned, both Box) Ambiguity {
	x := Ambiguity{First: first.n, Second: second.n, FirstRule: first.rule, SecondRule: second.rule}
	for i, p := range model.Protocols {
		if both[dimProtocol].Contains(Point{Lo: uint64(i)}) {
			x.Protocols = append(x.Protocols, p)
		}
	}
	for _, r := range both[dimPort] {
		x.Ports = append(x.Ports, model.PortRange{First: uint16(r.First.Lo), Last: uint16(r.Last.Lo)})
	}
	if local := both[dimLocal]; !local.Equal(bound.Minus(wildcards).Minus(loopback)) {
		for _, r := range local {
			x.Addresses = append(x.Addresses, model.AddressRange{First: addressOf(r.First), Last: addressOf(r.Last)})
		}
	}
	return x
}

// owned returns what rules let namespaces bind, sorted by the first port.
func (a *Lists) owned() []owned {
	var list []owned
	for i := range a.c.a.policy.SocketNamespaces {
		n := &a.c.a.policy.SocketNamespaces[i]
		if len(n.Bind) == 0 {
			continue
		}
		l := a.Of(n, model.Bind)
		if !l.Exact() {
			continue
		}
		all := l.space.domain
		all[dimPort], all[dimLocal] = allPorts.Minus(port0), bound.Minus(wildcards).Minus(loopback)
		for k, c := range l.clauses[l.starts[0]:l.starts[len(n.Bind)]] {
			if c.label != labelAllow {
				continue
			}
			in, ok := all.intersect(&c.box)
			if !ok {
				continue
			}
			for _, b := range l.space.pieces(l.decides, &in, func(id int) bool { return id == l.ids[l.starts[0]+k] }) {
				for _, r := range b.Box[dimPort] {
					list = append(list, owned{n, i, c.rule, r, &b.Box})
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b owned) int { return cmp.Compare(a.ports.First.Lo, b.ports.First.Lo) })
	return list
}

// places are what was met so far, by address, so that a claim is compared with
// few others.
type places struct {
	single map[netip.Addr][]owned
	wide   []owned // on more than single addresses
	all    []owned
}

func newPlaces() *places { return &places{single: make(map[netip.Addr][]owned)} }

// meet visits those that may have an address and a port with c, and adds c.
func (p *places) meet(c owned, visit func(owned)) {
	var addresses []netip.Addr
	for _, r := range c.box[dimLocal] {
		if r.First != r.Last {
			p.all = visited(p.all, c, visit)
			p.wide = append(p.wide, c)
			p.all = append(p.all, c)
			return
		}
		addresses = append(addresses, addressOf(r.First))
	}
	p.wide = visited(p.wide, c, visit)
	for _, at := range addresses {
		p.single[at] = append(visited(p.single[at], c, visit), c)
	}
	p.all = append(p.all, c)
}

// visited visits a list, and returns it without those whose ports end before
// those of c begin: none that comes later has a port with them.
func visited(list []owned, c owned, visit func(owned)) []owned {
	return slices.DeleteFunc(list, func(other owned) bool {
		if other.ports.Last.Lo < c.ports.First.Lo {
			return true
		}
		visit(other)
		return false
	})
}
