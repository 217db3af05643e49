package model

import "slices"

// Same reports whether two socket namespaces say the same at the same places.
// Of those that share their memory it takes no time.
func (n *SocketNamespace) Same(o *SocketNamespace) bool {
	if n == o {
		return true
	}
	return n.Name == o.Name && n.Device == o.Device && n.Each == o.Each && n.Mode == o.Mode && n.Pos == o.Pos && n.EachPos == o.EachPos &&
		same(n.Members, o.Members) && same(n.Addresses, o.Addresses) &&
		sameRules(n.Bind, o.Bind) && sameRules(n.Connect, o.Connect) && sameRules(n.Accept, o.Accept) &&
		sameOutcome(n.Default.Bind, o.Default.Bind) && sameOutcome(n.Default.Connect, o.Default.Connect) && sameOutcome(n.Default.Accept, o.Default.Accept)
}

// shared reports whether two lists are one in memory.
func shared[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func same[T comparable](a, b []T) bool { return shared(a, b) || slices.Equal(a, b) }

func sameOutcome(a, b *Outcome) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func sameRules(a, b []Rule) bool {
	return shared(a, b) || slices.EqualFunc(a, b, func(x, y Rule) bool {
		return x.Hook == y.Hook && x.Index == y.Index && x.Action == y.Action && x.Error == y.Error && x.Log == y.Log && x.Audit == y.Audit && x.Pos == y.Pos &&
			same(x.Protocols, y.Protocols) && same(x.Ports, y.Ports) && same(x.Local, y.Local) && same(x.Peers, y.Peers)
	})
}

// takeSame gives socket namespaces the memory of those that say the same.
func (p *parsed) takeSame(from *parsed) {
	names := make(map[string]*SocketNamespace, len(from.said.SocketNamespaces))
	for i := range from.said.SocketNamespaces {
		names[from.said.SocketNamespaces[i].Name] = &from.said.SocketNamespaces[i]
	}
	for i := range p.said.SocketNamespaces {
		n := &p.said.SocketNamespaces[i]
		if o := names[n.Name]; o != nil && n.Same(o) {
			*n = *o
		}
	}
}
