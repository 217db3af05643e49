package graph

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// refusal is what a rule of one end allows the other by name, and what of the
// other end refuses it.
type refusal struct {
	hook            model.Hook // of the rule that allows
	allows, refuses string
}

// refusals gathers traffic by refusal.
type refusals struct {
	order   []refusal
	traffic map[refusal]map[model.Protocol][]model.PortRange
}

// refusal returns why a flow does not happen, if only one end refuses it and
// the other names that end.
func (b *builder) refusal(from, to *end, d *model.Decision) (refusal, bool) {
	allows, other, refuses, refusing := d.Connect, to, d.Accept, to
	if d.Connect.Refuses() {
		allows, other, refuses, refusing = d.Accept, from, d.Connect, from
	}
	if allows.Action != model.Allow || !refuses.Refuses() || allows.Rule == nil || other.ns == nil {
		return refusal{}, false
	}
	named := slices.ContainsFunc(allows.Rule.Peers, func(p model.Peer) bool {
		return p.Kind == model.PeerNamespace && p.Name == other.ns.Name
	})
	return refusal{allows.Hook, b.ids[allows.Rule], b.decider(refusing, refuses)}, named
}

func (r *refusals) add(proto model.Protocol, ports model.PortRange, list []refusal) {
	for _, s := range list {
		if r.traffic[s] == nil {
			r.traffic[s] = make(map[model.Protocol][]model.PortRange)
			r.order = append(r.order, s)
		}
		r.traffic[s][proto] = appendPorts(r.traffic[s][proto], ports)
	}
}

func (r *refusals) oneSided() []OneSided {
	var list []OneSided
	for _, s := range r.order {
		for _, t := range mergeProtocols(r.traffic[s]) {
			list = append(list, OneSided{Hook: s.hook, Protocols: t.protocols, Ports: t.ports, Allows: s.allows, Refuses: s.refuses})
		}
	}
	return list
}
