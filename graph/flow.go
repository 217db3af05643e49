package graph

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// pair is two classes of local addresses between which packets can travel,
// with an address of each.
type pair struct {
	from, to       int // index of the classes
	fromIP, toIP   netip.Addr
	bindable, free bool // may both ends bind: by the rules; or because nothing refuses it
}

// cause is what allows a flow at both ends.
type cause struct {
	connect, accept string
	audit, named    bool
}

// group is the pairs that a cause allows, and those that there are.
type group struct {
	cause
	pairs, all string
}

// flows asks [model.Decide] about one flow of each kind that the rules at hand
// tell apart, and merges what is allowed.
func (b *builder) flows(from, to *end) ([]Flow, []OneSided) {
	p := b.part(from, to)
	local := from.node.Device != "" && from.node.Device == to.node.Device
	fromClasses := classes(b.predicates(from, to, model.Connect), from.within, local)
	toClasses := classes(b.predicates(to, from, model.Accept), to.within, local)
	pairs := pairsOf(fromClasses, toClasses)
	m := merger{traffic: make(map[group]map[model.Protocol][]model.PortRange)}
	one := refusals{traffic: make(map[refusal]map[model.Protocol][]model.PortRange)}
	for _, proto := range model.Protocols {
		for _, ports := range portCells(proto, from, to) {
			var refused []refusal
			causes := make(map[cause][]int)
			for i := range pairs {
				pair := &pairs[i]
				d := model.Decide(p, model.Flow{
					Protocol: proto,
					From:     model.End{Namespace: from.instance, Device: from.node.Device, Address: netip.AddrPortFrom(pair.fromIP, 0)},
					To:       model.End{Namespace: to.instance, Device: to.node.Device, Address: netip.AddrPortFrom(pair.toIP, ports.First)},
				})
				pair.bindable = d.FromBind.Action == model.Allow && d.ToBind.Action == model.Allow
				pair.free = !d.FromBind.Refuses() && !d.ToBind.Refuses()
				if !d.Allowed() {
					if r, ok := b.refusal(from, to, &d); ok && pair.free && !slices.Contains(refused, r) {
						refused = append(refused, r)
					}
					continue
				}
				c := cause{
					connect: b.decider(from, d.Connect), accept: b.decider(to, d.Accept),
					audit: !pair.bindable || d.Connect.Action == model.Deny || d.Accept.Action == model.Deny,
					named: from.ns == to.ns || speaksOf(d.Connect, to) || speaksOf(d.Accept, from),
				}
				causes[c] = append(causes[c], i)
			}
			m.add(proto, ports, causes, pairs)
			if len(causes) == 0 {
				one.add(proto, ports, refused)
			}
		}
	}
	return m.flows(pairs, fromClasses, toClasses), one.oneSided()
}

// speaksOf reports whether what allows a flow is about the other end, and not
// about anybody. For addresses that no rule names, that is what allows anybody.
func speaksOf(v model.Verdict, other *end) bool {
	if v.Action == model.Deny || v.Reason == model.ByUnmanaged {
		return false
	}
	if v.Rule == nil || len(v.Rule.Peers) == 0 {
		return other.node.Kind == Elsewhere
	}
	return slices.ContainsFunc(v.Rule.Peers, func(p model.Peer) bool {
		switch p.Kind {
		case model.PeerAny:
			return other.node.Kind == Elsewhere
		case model.PeerNamespace:
			return other.ns != nil && other.ns.Name == p.Name
		case model.PeerUnmanaged:
			return other.node.Kind == Unmanaged
		case model.PeerGroup:
			return other.node.Kind == Group && other.node.ID == p.Name
		}
		return other.node.Kind == Address || p.Kind == model.PeerAddress && p.Address.First.IsLoopback() && p.Address.Last.IsLoopback()
	})
}

// decider names what decided at an end.
func (b *builder) decider(e *end, v model.Verdict) string {
	switch v.Reason {
	case model.ByRule:
		return b.ids[v.Rule]
	case model.ByDefault:
		return DefaultID(e.ns.Name, v.Hook)
	}
	return string(v.Reason)
}

// predicates returns the sets of addresses that decide about the address of an
// end: its own, what its rules call local, and what the peer's rules name.
func (b *builder) predicates(e, peer *end, h model.Hook) []Ranges {
	var sets []Ranges
	add := func(list []model.AddressRange) {
		if len(list) > 0 {
			sets = append(sets, normal(list))
		}
	}
	if e.ns != nil {
		sets = append(sets, e.node.Addresses)
		for _, hook := range []model.Hook{model.Bind, h} {
			for i := range e.ns.Rules(hook) {
				var local []model.AddressRange
				for _, l := range e.ns.Rules(hook)[i].Local {
					local = append(local, b.policy.PeerAddresses(l, e.ns)...)
				}
				add(local)
			}
		}
	}
	if peer.ns != nil {
		theirs := model.Accept
		if h == model.Accept {
			theirs = model.Connect
		}
		for i := range peer.ns.Rules(theirs) {
			var addresses, names []model.AddressRange
			for _, q := range peer.ns.Rules(theirs)[i].Peers {
				switch q.Kind {
				case model.PeerNamespace:
					names = append(names, b.policy.PeerAddresses(q, peer.ns)...)
				case model.PeerGroup:
					addresses = append(addresses, b.groups[q.Name]...)
				case model.PeerAddress:
					addresses = append(addresses, q.Address)
				}
			}
			add(addresses)
			add(names)
		}
	}
	return sets
}

func pairsOf(from, to []class) []pair {
	var list []pair
	for i, f := range from {
		for j, t := range to {
			switch {
			case f.v4.IsValid() && t.v4.IsValid():
				list = append(list, pair{from: i, to: j, fromIP: f.v4, toIP: t.v4})
			case f.v6.IsValid() && t.v6.IsValid():
				list = append(list, pair{from: i, to: j, fromIP: f.v6, toIP: t.v6})
			}
		}
	}
	return list
}

// portCells divides the ports of the listening end at each border of the rules.
func portCells(proto model.Protocol, from, to *end) []model.PortRange {
	if !proto.HasPorts() {
		return []model.PortRange{{}}
	}
	starts := []int{1}
	cut := func(e *end, h model.Hook) {
		if e.ns == nil {
			return
		}
		for i := range e.ns.Rules(h) {
			for _, r := range e.ns.Rules(h)[i].Ports {
				starts = append(starts, int(r.First), int(r.Last)+1)
			}
		}
	}
	cut(from, model.Connect)
	cut(to, model.Accept)
	cut(to, model.Bind)
	slices.Sort(starts)
	starts = slices.Compact(starts)
	var list []model.PortRange
	for i, first := range starts {
		last := 65535
		if i+1 < len(starts) {
			last = starts[i+1] - 1
		}
		if first <= 65535 {
			list = append(list, model.PortRange{First: uint16(first), Last: uint16(last)})
		}
	}
	return list
}

// merger gathers what is allowed and merges ports, protocols and addresses,
// never to more than it was given.
type merger struct {
	order   []group
	traffic map[group]map[model.Protocol][]model.PortRange
}

func (m *merger) add(proto model.Protocol, ports model.PortRange, causes map[cause][]int, pairs []pair) {
	sorted := make([]cause, 0, len(causes))
	for c := range causes {
		sorted = append(sorted, c)
	}
	slices.SortFunc(sorted, func(a, b cause) int { // of equal rules, the flow that is not for the audit alone comes first
		return cmp.Or(strings.Compare(a.connect, b.connect), strings.Compare(a.accept, b.accept), cmp.Compare(fmt.Sprint(a.audit), fmt.Sprint(b.audit)))
	})
	for _, c := range sorted {
		var all []int
		for i, p := range pairs {
			if p.bindable || c.audit && p.free {
				all = append(all, i)
			}
		}
		g := group{cause: c, pairs: encode(causes[c]), all: encode(all)}
		if m.traffic[g] == nil {
			m.traffic[g] = make(map[model.Protocol][]model.PortRange)
			m.order = append(m.order, g)
		}
		m.traffic[g][proto] = appendPorts(m.traffic[g][proto], ports)
	}
}

// appendPorts adds ports behind those of a sorted list.
func appendPorts(list []model.PortRange, ports model.PortRange) []model.PortRange {
	if n := len(list); n > 0 && ports.First > 0 && list[n-1].Last+1 == ports.First {
		list[n-1].Last = ports.Last
		return list
	}
	return append(list, ports)
}

// encode and decode make a list of small numbers comparable.
func encode(list []int) string {
	b := make([]byte, 0, 2*len(list))
	for _, i := range list {
		b = append(b, byte(i>>8), byte(i))
	}
	return string(b)
}

func decode(s string) []int {
	list := make([]int, 0, len(s)/2)
	for i := 0; i+1 < len(s); i += 2 {
		list = append(list, int(s[i])<<8|int(s[i+1]))
	}
	return list
}

func (m *merger) flows(pairs []pair, from, to []class) []Flow {
	var list []Flow
	for _, g := range m.order {
		boxes := boxesOf(g, pairs, from, to)
		for _, t := range mergeProtocols(m.traffic[g]) {
			for _, box := range boxes {
				list = append(list, Flow{
					Protocols: t.protocols, Ports: t.ports, FromAddresses: box[0], ToAddresses: box[1],
					Connect: g.connect, Accept: g.accept, Audit: g.audit, Named: g.named,
				})
			}
		}
	}
	return list
}

// traffic is protocols and ports.
type traffic struct {
	protocols []model.Protocol
	ports     Ports
}

// mergeProtocols joins the protocols that have the same ports.
func mergeProtocols(by map[model.Protocol][]model.PortRange) []traffic {
	var list []traffic
	for _, proto := range model.Protocols {
		ports, ok := by[proto]
		if !ok {
			continue
		}
		if !proto.HasPorts() || len(ports) == 1 && ports[0] == (model.PortRange{First: 1, Last: 65535}) {
			ports = nil
		}
		i := slices.IndexFunc(list, func(t traffic) bool { return slices.Equal(t.ports, ports) })
		if i < 0 {
			list = append(list, traffic{ports: ports})
			i = len(list) - 1
		}
		list[i].protocols = append(list[i].protocols, proto)
	}
	return list
}

// boxesOf writes pairs of address classes as products of addresses.
func boxesOf(g group, pairs []pair, from, to []class) [][2]Ranges {
	if g.pairs == g.all {
		return [][2]Ranges{{nil, nil}}
	}
	ends := func(s string) (byFrom map[int][]int, tos []int) {
		byFrom = make(map[int][]int)
		for _, i := range decode(s) {
			byFrom[pairs[i].from] = append(byFrom[pairs[i].from], pairs[i].to)
			tos = append(tos, pairs[i].to)
		}
		slices.Sort(tos)
		return byFrom, slices.Compact(tos)
	}
	byFrom, _ := ends(g.pairs)
	allFrom, allTo := ends(g.all)
	grouped := make(map[string][]int) // from classes by what they reach
	var order []string
	for i := range from {
		if tos, ok := byFrom[i]; ok {
			k := encode(tos)
			if grouped[k] == nil {
				order = append(order, k)
			}
			grouped[k] = append(grouped[k], i)
		}
	}
	var boxes [][2]Ranges
	for _, k := range order {
		var box [2]Ranges
		if len(grouped[k]) < len(allFrom) {
			box[0] = rangesOf(from, grouped[k])
		}
		if tos := decode(k); len(tos) < len(allTo) {
			box[1] = rangesOf(to, tos)
		}
		boxes = append(boxes, box)
	}
	return boxes
}

func rangesOf(list []class, indexes []int) Ranges {
	var ranges []model.AddressRange
	for _, i := range indexes {
		ranges = append(ranges, list[i].ranges...)
	}
	return normal(ranges)
}
