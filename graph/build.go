package graph

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// end is one end of flows, as the builder asks [model.Decide] about it.
type end struct {
	node     Node
	ns       *model.SocketNamespace // nil: no namespace claims the sockets
	instance string                 // the namespace of the socket, for a template that of one instance
	within   Ranges                 // addresses, if it is outside
	connect  []offer
	accept   []offer
}

// builder holds what is worked out once for a policy.
type builder struct {
	policy *model.Policy
	names  model.Names
	groups map[string]Ranges
	ids    map[*model.Rule]string
}

// Build returns the graph of a policy that has no errors.
func Build(p *model.Policy) *Graph {
	b := &builder{policy: p, names: p.Names(), groups: make(map[string]Ranges), ids: make(map[*model.Rule]string)}
	for i := range p.Groups {
		b.groups[p.Groups[i].Name] = normal(p.Groups[i].Addresses)
	}
	g := &Graph{Nodes: []Node{}, Edges: []Edge{}, Rules: b.rules()}
	inside, outside := b.inside(), b.outside()
	for i := range inside {
		if inside[i].ns != nil {
			inside[i].node.Within = b.within(&inside[i])
		}
	}
	for i := range inside {
		for j := range inside {
			from, to := &inside[i], inside[j]
			if from.ns == nil && to.ns == nil || from.ns != nil && from.ns == to.ns && from.ns.Each == "" {
				continue // what no rule speaks of; what Within says
			}
			if (from.ns == nil || to.ns == nil) && from.node.Device != to.node.Device {
				continue // elsewhere, seen from there
			}
			if from.ns == to.ns {
				to.instance = from.ns.Name + "/another"
			}
			g.edge(b, from, &to)
		}
	}
	used := make(map[string]bool)
	for i := range inside {
		if inside[i].ns == nil {
			continue
		}
		for _, o := range b.outsideOf(&inside[i], model.Connect, outside) {
			used[o.node.ID] = g.edge(b, &inside[i], &o) || used[o.node.ID]
		}
		for _, o := range b.outsideOf(&inside[i], model.Accept, outside) {
			used[o.node.ID] = g.edge(b, &o, &inside[i]) || used[o.node.ID]
		}
	}
	for _, e := range inside {
		g.Nodes = append(g.Nodes, e.node)
	}
	for _, e := range outside {
		if used[e.node.ID] || e.node.Kind == Group {
			g.Nodes = append(g.Nodes, e.node)
		}
	}
	return g
}

// edge adds the edge between two ends, if there is one.
func (g *Graph) edge(b *builder, from, to *end) bool {
	if !mayMeet(from, to) {
		return false
	}
	flows, oneSided := b.flows(from, to)
	if len(flows) == 0 && len(oneSided) == 0 {
		return false
	}
	g.Edges = append(g.Edges, Edge{From: from.node.ID, To: to.node.ID, Flows: flows, OneSided: oneSided})
	return true
}

func (b *builder) within(e *end) []Flow {
	flows, _ := b.flows(e, e)
	return flows
}

func (b *builder) rules() []Rule {
	rules := []Rule{}
	for i := range b.policy.SocketNamespaces {
		n := &b.policy.SocketNamespaces[i]
		for _, h := range model.Hooks {
			for j := range n.Rules(h) {
				r := &n.Rules(h)[j]
				b.ids[r] = RuleID(n.Name, r)
				rules = append(rules, Rule{
					ID: b.ids[r], Namespace: n.Name, Hook: h.String(), Words: r.Words(),
					Action: string(r.Action), File: r.Pos.File, Line: r.Pos.Line,
				})
			}
		}
	}
	return rules
}

// inside returns the socket namespaces, and for each device namespace that has
// some the sockets that none of them claims.
func (b *builder) inside() []end {
	var list []end
	devices := make(map[string]bool)
	for i := range b.policy.SocketNamespaces {
		n := &b.policy.SocketNamespaces[i]
		devices[n.Device] = true
		e := end{ns: n, instance: n.Name, node: Node{
			ID: n.Name, Kind: Namespace, Device: n.Device, Audit: n.Mode == model.Audit,
			Addresses: normal(n.Addresses), File: n.Pos.File, Line: n.Pos.Line,
		}}
		for _, m := range n.Members {
			e.node.Members = append(e.node.Members, m.String())
		}
		if n.Each != "" {
			e.node.Kind = Template
			e.node.Members = []string{"each " + n.Each}
			e.instance += "/one"
		}
		e.connect, e.accept = b.offers(n, model.Connect), b.offers(n, model.Accept)
		list = append(list, e)
	}
	for _, d := range b.policy.DeviceNamespaces {
		if devices[d.Name] {
			node := Node{ID: "unmanaged@" + d.Name, Kind: Unmanaged, Device: d.Name}
			list = append(list, end{node: node, connect: anything, accept: anything})
		}
	}
	return list
}

// outside returns what rules name by address, and elsewhere.
func (b *builder) outside() []end {
	var list []end
	seen := make(map[string]bool)
	add := func(kind Kind, id string, addresses Ranges, pos model.Position) {
		if seen[id] {
			return
		}
		seen[id] = true
		n := Node{ID: id, Kind: kind, Addresses: addresses, File: pos.File, Line: pos.Line}
		list = append(list, end{node: n, within: addresses, connect: anything, accept: anything})
	}
	for i := range b.policy.SocketNamespaces {
		n := &b.policy.SocketNamespaces[i]
		for _, h := range []model.Hook{model.Connect, model.Accept} {
			for j := range n.Rules(h) {
				for _, peer := range n.Rules(h)[j].Peers {
					switch peer.Kind {
					case model.PeerGroup:
						add(Group, peer.Name, b.groups[peer.Name], b.policy.Group(peer.Name).Pos)
					case model.PeerAddress:
						add(Address, peer.String(), Ranges{peer.Address}, model.Position{})
					}
				}
			}
		}
	}
	add(Elsewhere, "elsewhere", nil, model.Position{})
	return list
}

// outsideOf returns what the rules of one hook of a namespace name, and as
// elsewhere all addresses that they do not.
func (b *builder) outsideOf(e *end, h model.Hook, outside []end) []end {
	var list []end
	var named []Ranges
	mine := make(map[string]bool)
	for i := range e.ns.Rules(h) {
		for _, peer := range e.ns.Rules(h)[i].Peers {
			if peer.Kind == model.PeerGroup || peer.Kind == model.PeerAddress {
				mine[peer.String()] = true
			}
		}
	}
	for _, o := range outside {
		switch {
		case mine[o.node.ID]:
			named = append(named, o.within)
			list = append(list, o)
		case o.node.Kind == Elsewhere:
			o.within = without(named)
			list = append(list, o)
		}
	}
	return list
}

// part returns a policy that decides as the whole one does about flows between
// two ends: their namespaces and all that their rules name.
func (b *builder) part(from, to *end) *model.Policy {
	p := &model.Policy{DeviceNamespaces: b.policy.DeviceNamespaces}
	var names []string
	namespace := func(name string) {
		if n := b.names.Namespace(name); n != nil && !slices.Contains(names, name) {
			names = append(names, name)
			p.SocketNamespaces = append(p.SocketNamespaces, *n)
		}
	}
	peers := func(list []model.Peer) {
		for _, peer := range list {
			switch peer.Kind {
			case model.PeerNamespace:
				namespace(peer.Name)
			case model.PeerGroup:
				if g := b.policy.Group(peer.Name); !slices.ContainsFunc(p.Groups, func(o model.Group) bool { return o.Name == g.Name }) {
					p.Groups = append(p.Groups, *g)
				}
			}
		}
	}
	for _, e := range []*end{from, to} {
		if e.ns != nil {
			namespace(e.ns.Name)
		}
	}
	for _, e := range []*end{from, to} {
		if e.ns == nil {
			continue
		}
		for _, h := range model.Hooks {
			for i := range e.ns.Rules(h) {
				peers(e.ns.Rules(h)[i].Local)
				peers(e.ns.Rules(h)[i].Peers)
			}
		}
	}
	return p
}
