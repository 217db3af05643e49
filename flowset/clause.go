package flowset

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// The labels of what a hook answers: labelAllow, the place of an errno in
// errnos and 1, or labelUnnamed.
const (
	labelAllow = 0
	// labelUnnamed is the denial of a bind on an own address whose rule names
	// no errno: EADDRINUSE where another namespace may bind the port, else
	// EACCES; see taken.
	labelUnnamed = -1
)

var errnos = [...]model.Errno{
	model.EACCES, model.EADDRINUSE, model.EADDRNOTAVAIL, model.ECONNREFUSED,
	model.EHOSTUNREACH, model.ENETUNREACH, model.EPERM, model.ETIMEDOUT,
}

func labelOf(e model.Errno) int {
	if e == "" {
		return labelUnnamed
	}
	return slices.Index(errnos[:], e) + 1
}

// clause says what the answer is in a box, unless a clause before it says so.
type clause struct {
	box   Box
	label int
	rule  int // index in the list from 1; 0 for what is no rule
}

// domain is where the functions of a hook are defined.
func domain(h model.Hook, u *universe) Box {
	switch h {
	case model.Bind:
		return Box{allProtocols, unknown.Union(bound).Minus(wildcards), allPorts, Set{numbers(0, 0)}, unknown}
	case model.Connect:
		return Box{allProtocols, allLocal.Minus(wildcards), allPorts, u.all(), allPeers}
	}
	return Box{allProtocols, bound.Minus(wildcards), allPorts, u.all(), allPeers}
}

// list writes the rules of a hook for one namespace as clauses.
type list struct {
	world *world
	u     *universe
	n     *model.SocketNamespace
	hook  model.Hook
	all   Box // the domain
	out   []clause
}

// clauses returns what a hook of a namespace says, up to its default: the last
// clause has the whole domain. n is nil for unmanaged sockets.
func (w *world) clauses(u *universe, h model.Hook, n *model.SocketNamespace) []clause {
	l := &list{world: w, u: u, n: n, hook: h, all: domain(h, u)}
	switch {
	case n == nil:
		l.add(l.all, labelAllow, 0)
	case h == model.Bind:
		l.bind()
	default:
		l.peers()
	}
	return l.out
}

func (l *list) add(box Box, label, rule int) {
	for d := range box {
		if box[d].Empty() {
			return
		}
	}
	l.out = append(l.out, clause{box, label, rule})
}

// bind follows [model.DecideBind].
func (l *list) bind() {
	mine := own(l.n).Union(unknown).Intersect(l.all[dimLocal])
	picks := l.all
	picks[dimPort], picks[dimLocal] = port0, mine
	l.add(picks, labelAllow, 0)
	for i := range l.n.Bind {
		r := &l.n.Bind[i]
		if r.Audit {
			continue
		}
		box := l.all
		box[dimProtocol], box[dimPort] = protocolsOf(r), portsOf(r)
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
	others := l.all
	others[dimLocal] = l.all[dimLocal].Minus(mine)
	l.add(others, labelOf(model.EADDRNOTAVAIL), 0)
	end := labelAllow
	if d := l.n.Default.Bind; d != nil {
		if d.Action == model.Deny {
			end = labelOf(d.Error)
		}
	} else if len(l.n.Bind) > 0 {
		end = labelUnnamed
	}
	l.add(l.all, end, 0)
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
		l.add(hidden, labelAllow, 0)
	}
	rules := l.n.Rules(l.hook)
	for i := range rules {
		r := &rules[i]
		if r.Audit {
			continue
		}
		box := l.all
		box[dimProtocol], box[dimPort] = protocolsOf(r), portsOf(r)
		box[dimLocal] = own(l.n).Union(unknown).Union(picked)
		if len(r.Local) > 0 {
			box[dimLocal] = l.local(r)
		}
		box[dimLocal] = box[dimLocal].Intersect(l.all[dimLocal])
		l.rulePeers(r, box)
	}
	same := l.all
	same[dimPeer] = Set{numbers(classSelf, classSelf)}
	l.add(same, labelAllow, 0)
	end := labelOf(model.ECONNREFUSED)
	if d := l.n.Default.For(l.hook); d != nil {
		switch {
		case d.Action == model.Allow:
			end = labelAllow
		case d.Error != "":
			end = labelOf(d.Error)
		}
	}
	l.add(l.all, end, 0)
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

// diagram returns the function of clauses, of which the first that has a point
// decides.
func (s *space) diagram(clauses []clause, label func(clause) int) *Diagram {
	last := len(clauses) - 1
	d := s.constant(label(clauses[last]))
	for i := last - 1; i >= 0; i-- {
		d = s.paint(d, &clauses[i].box, label(clauses[i]))
	}
	return d
}

// errnoOf is the inverse of labelOf; an allow has no errno.
func errnoOf(label int) model.Errno {
	if label <= labelAllow {
		return ""
	}
	return errnos[label-1]
}
