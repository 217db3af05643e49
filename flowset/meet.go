package flowset

import "github.com/sockns/sockns/model"

// Ends is what becomes of the flows between two socket namespaces that a rule
// of one of them allows.
type Ends struct {
	Decides bool // there are flows between them that the rule decides
	Meet    bool // and some of them happen
	// Refuses, if none happens, is the hook of the other end that refuses all:
	// Bind if none of its sockets can be where it would be needed.
	Refuses model.Hook
}

// Connects says what becomes of the flows to sockets of another namespace, or
// of the same, that a rule of connect decides. The other end refuses nothing if
// it is in audit.
func (a *Lists) Connects(n *model.SocketNamespace, rule int, to *model.SocketNamespace) Ends {
	var e Ends
	if !a.exact(n, to) {
		return e
	}
	for _, w := range a.ways(n, to) {
		asked := a.connecting(n, rule, w)
		if len(asked) == 0 {
			continue
		}
		e.Decides = true
		if to.Mode == model.Audit {
			return Ends{Decides: true, Meet: true}
		}
		heard := crossings(asked, a.listening(to))
		if len(heard) > 0 {
			e.Refuses = model.Accept
		}
		if len(crossings(heard, a.accepting(to, 0, w))) > 0 {
			return Ends{Decides: true, Meet: true}
		}
	}
	return e
}

// Accepts is the same for a rule of accept and the flows from sockets of
// another namespace.
func (a *Lists) Accepts(n *model.SocketNamespace, rule int, from *model.SocketNamespace) Ends {
	e := Ends{Refuses: model.Connect}
	if !a.exact(from, n) {
		return e
	}
	for _, w := range a.ways(from, n) {
		heard := crossings(a.accepting(n, rule, w), a.listening(n))
		if len(heard) == 0 {
			continue
		}
		e.Decides = true
		if from.Mode == model.Audit || len(crossings(heard, a.connecting(from, 0, w))) > 0 {
			return Ends{Decides: true, Meet: true}
		}
	}
	return e
}

// exact reports whether all is known of what two ends say.
func (a *Lists) exact(from, to *model.SocketNamespace) bool {
	return a.Of(from, model.Connect).Exact() && a.Of(from, model.Bind).Exact() &&
		a.Of(to, model.Accept).Exact() && a.Of(to, model.Bind).Exact()
}

// way is how two ends know each other: by class, for these protocols.
type way struct {
	protocols      Set
	client, server Set // classes: of the client to the server, of the server to the client
}

func (a *Lists) ways(from, to *model.SocketNamespace) []way {
	if from.Device != to.Device {
		return []way{{allProtocols, elsewhere, elsewhere}}
	}
	list := []way{{allProtocols.Minus(identifying), elsewhere, elsewhere}}
	if from != to {
		return append(list, way{identifying, a.Of(to, model.Accept).u.known(from.Name), a.Of(from, model.Connect).u.known(to.Name)})
	}
	self, sibling := Set{numbers(classSelf, classSelf)}, Set{numbers(classSibling, classSibling)}
	list = append(list, way{identifying, self, self})
	if from.Each != "" {
		list = append(list, way{identifying, sibling, sibling})
	}
	return list
}

// known returns the class of another namespace of the device namespace.
func (u *universe) known(name string) Set {
	if c := u.class(name); c != nil {
		return c
	}
	return Set{numbers(classOther, classOther)}
}

// crossing is a set of flows as both ends see them: every combination.
type crossing struct{ protocols, ports, client, server Set }

// crossings returns the flows that are in both.
func crossings(a, b []crossing) []crossing {
	var list []crossing
	for _, x := range a {
		for _, y := range b {
			c := crossing{x.protocols.Intersect(y.protocols), x.ports.Intersect(y.ports), x.client.Intersect(y.client), x.server.Intersect(y.server)}
			if !c.protocols.Empty() && !c.ports.Empty() {
				list = c.append(list)
			}
		}
	}
	return list
}

// append appends the flows whose addresses are of one family.
func (c crossing) append(list []crossing) []crossing {
	for _, f := range families {
		one := crossing{c.protocols, c.ports, c.client.Intersect(f.peer), c.server.Intersect(f.peer)}
		if !one.client.Empty() && !one.server.Empty() {
			list = append(list, one)
		}
	}
	return list
}

// allowed returns where a rule (0: anything) allows, for a way.
func (l *List) allowed(rule int, protocols, peer Set) []Labeled {
	in := l.space.domain
	in[dimProtocol], in[dimPeer] = protocols, peer
	return l.space.pieces(l.decides, &in, func(id int) bool {
		return id != outside && l.clauses[id].label == labelAllow && (rule == 0 || l.clauses[id].rule == rule)
	})
}

// connecting returns the flows that a client's connect allows by a rule (0: by
// anything), from addresses that it may bind or that the kernel picks.
func (a *Lists) connecting(n *model.SocketNamespace, rule int, w way) []crossing {
	var list []crossing
	for _, b := range a.Of(n, model.Connect).allowed(rule, w.protocols, w.server) {
		c := crossing{b.Box[dimProtocol], b.Box[dimPort], fromPicked(b.Box[dimLocal].Intersect(picked)), b.Box[dimAddress].Intersect(bound)}
		list = c.append(list)
		for _, own := range a.binds(n) {
			c := crossing{c.protocols.Intersect(own.Box[dimProtocol]), c.ports, b.Box[dimLocal].Intersect(own.Box[dimLocal]).Intersect(bound), c.server}
			if !c.protocols.Empty() {
				list = c.append(list)
			}
		}
	}
	return list
}

// accepting returns the flows that a server's accept allows by a rule (0: by
// anything).
func (a *Lists) accepting(n *model.SocketNamespace, rule int, w way) []crossing {
	var list []crossing
	for _, b := range a.Of(n, model.Accept).allowed(rule, w.protocols, w.client) {
		list = crossing{b.Box[dimProtocol], b.Box[dimPort], b.Box[dimAddress].Intersect(bound), b.Box[dimLocal].Intersect(bound)}.append(list)
	}
	return list
}

// listening returns the flows to where a server may bind.
func (a *Lists) listening(n *model.SocketNamespace) []crossing {
	var list []crossing
	for _, b := range a.binds(n) {
		list = crossing{b.Box[dimProtocol], b.Box[dimPort], bound, b.Box[dimLocal].Intersect(bound)}.append(list)
	}
	return list
}

// binds returns where a namespace may bind.
func (a *Lists) binds(n *model.SocketNamespace) []Labeled {
	list, ok := a.bound[n.Name]
	if !ok {
		l := a.Of(n, model.Bind)
		list = l.space.boxes(l.decides, func(id int) bool { return id != outside && l.clauses[id].label == labelAllow })
		a.bound[n.Name] = list
	}
	return list
}
