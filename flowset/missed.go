package flowset

import "github.com/sockns/sockns/model"

// denied are ports that a namespace may not bind, by a denial that names no
// errno, in a zone of its local addresses.
type denied struct {
	proto model.Protocol
	local Set
	ports Set
}

// deniedTo returns what a namespace may not bind without a named errno.
func (a *Lists) deniedTo(n *model.SocketNamespace) []denied {
	if list, ok := a.denied[n.Name]; ok {
		return list
	}
	u := newUniverse(n.Device, n.Name, model.Bind, a.c.a)
	s := newSpace(domain(model.Bind, u))
	var list []denied
	for _, b := range s.boxes(s.diagram(a.c.a.clauses(u, model.Bind, n), func(c clause) int { return c.label }), func(label int) bool { return label == labelUnnamed }) {
		for _, proto := range [...]model.Protocol{model.TCP, model.UDP} {
			if !b.Box[dimProtocol].Overlaps(protocolSet(func(q model.Protocol) bool { return q == proto })) {
				continue
			}
			for _, part := range zones(b.Box[dimLocal]) {
				list = append(list, denied{proto, part, b.Box[dimPort]})
			}
		}
	}
	a.denied[n.Name] = list
	return list
}

// missed reports whether another namespace gets another errno without some of
// the bind rules of a namespace.
func (a *Lists) missed(n *model.SocketNamespace, without func(i int) bool) bool {
	lost := make(map[model.Protocol]Set)
	for _, proto := range [...]model.Protocol{model.TCP, model.UDP} {
		if ports := claimedBy(n, proto, nil).Minus(claimedBy(n, proto, without)); !ports.Empty() {
			lost[proto] = ports
		}
	}
	if len(lost) == 0 {
		return false
	}
	all := a.c.a.policy.SocketNamespaces
	for i := range all {
		m := &all[i]
		if m.Name == n.Name || m.Device != n.Device {
			continue
		}
		if !a.Of(m, model.Bind).Exact() {
			return true // who knows
		}
		for _, d := range a.deniedTo(m) {
			wide := a.c.breadth(a.c.a, subject{m.Name, m.Device}, d.proto, d.local).wide
			ports := d.ports.Intersect(lost[d.proto])
			if wide || n.Shares(m) {
				ports = a.unclaimed(ports, d.proto, wide, n, m)
				if !ports.Empty() {
					return true
				}
			}
		}
	}
	return false
}

// unclaimed returns those of ports that no namespace but two may bind.
func (a *Lists) unclaimed(ports Set, proto model.Protocol, wide bool, n, m *model.SocketNamespace) Set {
	all := a.c.a.policy.SocketNamespaces
	for i := range all {
		k := &all[i]
		if ports.Empty() {
			break
		}
		if k.Name != n.Name && k.Name != m.Name && k.Device == n.Device && (wide || k.Shares(m)) {
			ports = ports.Minus(claimedBy(k, proto, nil))
		}
	}
	return ports
}
