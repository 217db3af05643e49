package flowset

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// list writes the rules of a hook for one namespace as clauses.
type list struct {
	world *world
	u     *universe
	n     *model.SocketNamespace
	hook  model.Hook
	all   Box // the domain
	// taken, if it is set, says which ports others may bind, so that denials of
	// a bind get their errno; else they stay labelUnnamed.
	taken  func(proto model.Protocol, local Set) Set
	out    []clause
	starts []int // where in out the clauses of each rule begin, and where those of the last end
}

// clauses returns what a hook of a namespace says, up to its default: the last
// clause has the whole domain. n is nil for unmanaged sockets.
func (w *world) clauses(u *universe, h model.Hook, n *model.SocketNamespace) []clause {
	l := &list{world: w, u: u, n: n, hook: h, all: domain(h, u)}
	l.write()
	return l.out
}

func (l *list) write() {
	switch {
	case l.n == nil:
		l.end(l.all, labelAllow, Default)
	case l.hook == model.Bind:
		l.bind()
	default:
		l.peers()
	}
}

// add adds what a rule says.
func (l *list) add(box Box, label, rule int) { l.put(clause{box, label, rule, Rule}) }

// end adds what holds without a rule.
func (l *list) end(box Box, label int, by Decider) { l.put(clause{box, label, 0, by}) }

func (l *list) put(c clause) {
	if c.box.empty() {
		return
	}
	if c.label == labelUnnamed && l.taken != nil {
		l.name(c)
		c.label = labelOf(model.EACCES)
	}
	l.out = append(l.out, c)
}

// name adds the parts of an unnamed denial that are EADDRINUSE.
func (l *list) name(c clause) {
	whole := c.box
	for _, proto := range [...]model.Protocol{model.TCP, model.UDP} {
		for _, part := range zones(whole[dimLocal]) {
			c.box[dimProtocol] = whole[dimProtocol].Intersect(protocolSet(func(q model.Protocol) bool { return q == proto }))
			c.box[dimLocal], c.box[dimPort] = part, whole[dimPort].Intersect(l.taken(proto, part))
			c.label = labelOf(model.EADDRINUSE)
			l.put(c)
		}
	}
}

// zones splits local addresses by whose claims on ports count there: the
// wildcard, loopback, and others.
func zones(local Set) []Set {
	var parts []Set
	for _, part := range [...]Set{local.Intersect(unknown), local.Intersect(loopback), local.Minus(unknown).Minus(loopback)} {
		if !part.Empty() {
			parts = append(parts, part)
		}
	}
	return parts
}

// rules adds what the rules of the hook say, but those in audit.
func (l *list) rules() {
	rules := l.n.Rules(l.hook)
	for i := range rules {
		l.starts = append(l.starts, len(l.out))
		if r := &rules[i]; !r.Audit {
			l.rule(r)
		}
	}
	l.starts = append(l.starts, len(l.out))
}

// bind follows [model.DecideBind].
func (l *list) bind() {
	mine := own(l.n).Union(unknown).Intersect(l.all[dimLocal])
	picks := l.all
	picks[dimPort], picks[dimLocal] = port0, mine
	l.end(picks, labelAllow, PickedPort)
	l.rules()
	others := l.all
	others[dimLocal] = l.all[dimLocal].Minus(mine)
	l.end(others, labelOf(model.EADDRNOTAVAIL), OtherAddress)
	end := labelAllow
	if d := l.n.Default.Bind; d != nil {
		if d.Action == model.Deny {
			end = labelOf(d.Error)
		}
	} else if len(l.n.Bind) > 0 {
		end = labelUnnamed
	}
	l.end(l.all, end, Default)
}

// rule adds what a rule says, whether or not it is in audit.
func (l *list) rule(r *model.Rule) {
	box := l.all
	box[dimProtocol], box[dimPort] = protocolsOf(r), portsOf(r)
	if r.Hook == model.Bind {
		l.bindRule(r, box)
		return
	}
	box[dimLocal] = own(l.n).Union(unknown).Union(picked)
	if len(r.Local) > 0 {
		box[dimLocal] = l.local(r)
	}
	box[dimLocal] = box[dimLocal].Intersect(l.all[dimLocal])
	l.rulePeers(r, box)
}

func (l *list) bindRule(r *model.Rule, box Box) {
	mine := own(l.n).Union(unknown).Intersect(l.all[dimLocal])
	local := mine
	if len(r.Local) > 0 {
		local = l.local(r).Minus(unknown)
	}
	local = local.Intersect(l.all[dimLocal])
	if r.Action == model.Deny && r.Error == "" {
		box[dimLocal] = local.Minus(mine)
		l.add(box, labelOf(model.EADDRNOTAVAIL), r.Index)
		local = local.Intersect(mine)
	}
	box[dimLocal] = local
	l.add(box, l.label(r), r.Index)
}

func (l *list) label(r *model.Rule) int {
	switch {
	case r.Action == model.Allow:
		return labelAllow
	case r.Error == "" && r.Hook != model.Bind:
		return labelOf(model.ECONNREFUSED)
	}
	return labelOf(r.Error)
}

// peers follows Decide for connect and accept.
func (l *list) peers() {
	if l.hook == model.Accept {
		hidden := l.all
		hidden[dimProtocol] = allProtocols.Minus(identifying)
		l.end(hidden, labelAllow, HiddenSocket)
	}
	l.rules()
	same := l.all
	same[dimPeer] = Set{numbers(classSelf, classSelf)}
	l.end(same, labelAllow, SameNamespace)
	end := labelOf(model.ECONNREFUSED)
	if d := l.n.Default.For(l.hook); d != nil {
		switch {
		case d.Action == model.Allow:
			end = labelAllow
		case d.Error != "":
			end = labelOf(d.Error)
		}
	}
	l.end(l.all, end, Default)
}

// rulePeers adds the boxes of a rule's peers: by address whoever it is, by
// class, and by the addresses of a namespace where identity does not show.
func (l *list) rulePeers(r *model.Rule, box Box) {
	label := l.label(r)
	var classes Set
	var anyone, elsewhere []model.AddressRange
	for _, p := range r.Peers {
		switch p.Kind {
		case model.PeerAny:
			l.add(box, label, r.Index)
			return
		case model.PeerSelf:
			classes = classes.Union(Set{numbers(classSelf, classSelf)})
		case model.PeerUnmanaged:
			classes = classes.Union(l.u.unmanaged(l.world))
		case model.PeerNamespace:
			if l.world.resident(p.Name, l.u.device) != nil {
				classes = classes.Union(l.u.class(p.Name))
			}
			elsewhere = append(elsewhere, l.world.addresses(p, nil)...)
		default:
			anyone = append(anyone, l.world.addresses(p, nil)...)
		}
	}
	if len(r.Peers) == 0 {
		l.add(box, label, r.Index)
		return
	}
	by := box
	by[dimAddress] = addressSet(anyone)
	l.add(by, label, r.Index)
	by = box
	by[dimPeer] = classes
	l.add(by, label, r.Index)
	by = box
	by[dimPeer], by[dimAddress] = Set{numbers(classElsewhere, classElsewhere)}, addressSet(elsewhere)
	l.add(by, label, r.Index)
}

// local returns what a rule's own list of local addresses matches.
func (l *list) local(r *model.Rule) Set {
	var addresses []model.AddressRange
	for _, p := range r.Local {
		if p.Kind == model.PeerAny {
			return allLocal
		}
		addresses = append(addresses, l.world.addresses(p, l.n)...)
	}
	set := addressSet(addresses)
	return set.Union(asPicked(set))
}

func protocolsOf(r *model.Rule) Set {
	switch {
	case len(r.Protocols) > 0:
		return protocolSet(func(p model.Protocol) bool { return slices.Contains(r.Protocols, p) })
	case len(r.Ports) > 0:
		return withPorts
	}
	return allProtocols
}

func portsOf(r *model.Rule) Set {
	if len(r.Ports) == 0 {
		return allPorts
	}
	ranges := make([]Range, len(r.Ports))
	for i, p := range r.Ports {
		ranges[i] = numbers(int(p.First), int(p.Last))
	}
	return setOf(ranges...)
}
