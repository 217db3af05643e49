package conform

import (
	"net/netip"
	"slices"

	"github.com/sockns/sockns/model"
)

// What docs/limits.md says of steered TCP listeners, written anew.

// hiddenHome stands for the addresses at which the tier binds the listeners of
// the n-th socket namespace or instance that can't have the address they ask
// for. No other socket of a world is bound there.
func (j *Judge) hiddenHome(namespace string) netip.Addr {
	n := slices.Index(j.hidden, namespace)
	if n < 0 {
		n = len(j.hidden)
		j.hidden = append(j.hidden, namespace)
	}
	return netip.AddrFrom4([4]byte{127, 64, 0, byte(n)})
}

// bind returns what is seen of a bind, and where the socket is then.
func (j *Judge) bind(f Flow) (Seen, netip.AddrPort) {
	from := j.end(f.Device, f.Cgroup)
	n := j.answers(from)
	if n == nil {
		return Seen{Outcomes: []string{j.World.bound(f, f.Bind)}}, f.Bind
	}
	v := model.DecideBind(j.Policy, from.Namespace, f.Protocol, f.Bind)
	s := Seen{Decision: model.Decision{FromBind: v}}
	if v.Refuses() {
		s.Outcomes = []string{string(j.bindError(v, n, from.Namespace, f))}
		return s, netip.AddrPort{}
	}
	if n.Mode != model.Audit && j.conflicts(f, from.Namespace) {
		s.Outcomes = []string{string(model.EADDRINUSE)}
		return s, netip.AddrPort{}
	}
	home := j.rewritten(n, from.Namespace, f)
	s.Outcomes = []string{j.World.bound(f, home)}
	return s, home
}

// conflicts reports whether a steered listener of the same namespace has what a
// bind asks for, unseen by the kernel.
func (j *Judge) conflicts(f Flow, namespace string) bool {
	return slices.ContainsFunc(j.World.Listeners, func(l Listener) bool {
		a, b := l.Asked.Addr(), f.Bind.Addr()
		return l.Asked.IsValid() && l.Device == f.Device && l.Protocol == f.Protocol && l.Asked.Port() == f.Bind.Port() && l.Owner == namespace &&
			(a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified()))
	})
}

// rewritten is what a bind of a namespace becomes.
func (j *Judge) rewritten(n *model.SocketNamespace, namespace string, f Flow) netip.AddrPort {
	to := f.Bind
	if n.Mode == model.Audit {
		return to
	}
	four, steered := to.Addr().Is4(), f.Protocol == model.TCP && to.Port() != 0
	at := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, to.Port()) }
	switch {
	case steered && to.Addr() == loopbacks[0] && j.shares(f, namespace):
		return at(j.hiddenHome(namespace))
	case !to.Addr().IsUnspecified() || len(n.Addresses) == 0:
		return to
	case steered:
		if own := ownSource(n, four); slices.Contains(j.World.Devices[f.Device].Addresses, own) {
			return at(own)
		}
		if four {
			return at(j.hiddenHome(namespace))
		}
		return to // there are hidden addresses of IPv4 only
	}
	var own []model.AddressRange
	for _, a := range n.Addresses {
		if a.First.Is4() == four && !a.First.IsLoopback() {
			own = append(own, a)
		}
	}
	if len(own) == 1 && own[0].First == own[0].Last {
		return at(own[0].First)
	}
	return to
}

// shares reports whether a bind to a loopback address is one beside another
// namespace's. A listener that is not steered does not share.
func (j *Judge) shares(f Flow, namespace string) bool {
	if l := j.World.Receiver(f.Device, f.Protocol, f.Bind); l != nil {
		return l.Asked.IsValid() && l.Owner != namespace
	}
	return j.claimed(f, namespace)
}

// claimed reports whether another namespace asked for the address before,
// under this policy, and claims it otherwise.
func (j *Judge) claimed(f Flow, namespace string) bool {
	k := claim{f.Device, f.Bind}
	first, ok := j.claims[k]
	if !ok {
		if j.claims == nil {
			j.claims = make(map[claim]string)
		}
		j.claims[k], first = namespace, namespace
	}
	return first != namespace
}

type claim struct {
	device  int
	address netip.AddrPort
}

// Listen has the sockets of a fresh world listen, one after the other. It
// returns what each sees; those that listen are in the judge's world.
func (j *Judge) Listen() []Seen {
	w := j.World.Empty()
	j.World = w
	seen := make([]Seen, len(w.Binds))
	for i, l := range w.Binds {
		var home netip.AddrPort
		seen[i], home = j.bind(l.bind())
		if seen[i].Outcomes[0] != Ok {
			continue
		}
		from := j.end(l.Device, l.Cgroup)
		if n := j.answers(from); n != nil && n.Mode != model.Audit && l.Protocol == model.TCP {
			l.Asked, l.Owner = l.Address, from.Namespace
		}
		l.Address = home
		w.add(l)
	}
	return seen
}

// bind is the flow that binds a listener.
func (l Listener) bind() Flow {
	return Flow{Protocol: l.Protocol, Device: l.Device, Cgroup: l.Cgroup, Bind: l.Address}
}

// receiver returns the listener that gets what a flow sends from an end, nil
// if none does.
func (j *Judge) receiver(f Flow, from model.End) *Listener {
	if l := j.steered(f, from); l != nil {
		return l
	}
	return j.World.Receiver(f.ToDevice, f.Protocol, f.To)
}

// steered returns the listener that a connection is steered to, nil if the
// kernel finds one itself.
func (j *Judge) steered(f Flow, from model.End) *Listener {
	if f.Protocol != model.TCP {
		return nil
	}
	type choice struct {
		*Listener
		accepts bool
	}
	var choices []choice // of an exact address before the wildcard, in the order of the policy
	for i := range j.World.Listeners {
		l := &j.World.Listeners[i]
		if !l.Asked.IsValid() || l.Device != f.ToDevice || l.Asked.Port() != f.To.Port() {
			continue
		}
		to, asked := f.To.Addr(), l.Asked.Addr()
		n := j.Policy.Namespace(l.Owner)
		if to != asked && !(asked.IsUnspecified() && to.Is4() == asked.Is4()) || !n.Owns(to) {
			continue
		}
		end := j.end(l.Device, l.Cgroup)
		end.Address = f.To
		d := model.Decide(j.Policy, model.Flow{Protocol: f.Protocol, From: from, To: end})
		choices = append(choices, choice{l, !d.Accept.Refuses()})
	}
	slices.SortStableFunc(choices, func(a, b choice) int {
		if d := j.place(a.Owner) - j.place(b.Owner); d != 0 {
			return d
		}
		return wildcards(a.Asked) - wildcards(b.Asked)
	})
	of := func(namespace string, accepts bool) *Listener {
		i := slices.IndexFunc(choices, func(c choice) bool { return c.Owner == namespace })
		if namespace == "" || i < 0 || accepts && !choices[i].accepts {
			return nil
		}
		return choices[i].Listener
	}
	owner := ""
	if f.To.Addr().IsLoopback() {
		if l := of(from.Namespace, true); f.Near() && l != nil {
			return l
		}
		if l := j.World.Receiver(f.ToDevice, f.Protocol, f.To); l != nil && !l.Asked.IsValid() {
			return nil // it keeps its clients
		}
	} else {
		owner = j.lister(f.ToDevice, f.To.Addr())
		if l := of(owner, true); l != nil {
			return l
		}
	}
	if i := slices.IndexFunc(choices, func(c choice) bool { return c.accepts }); i >= 0 {
		return choices[i].Listener
	}
	return of(owner, false)
}

func wildcards(a netip.AddrPort) int {
	if a.Addr().IsUnspecified() {
		return 1
	}
	return 0
}

// place is where the policy has a namespace, or the template of an instance.
func (j *Judge) place(namespace string) int {
	n := j.Policy.Namespace(namespace)
	for i := range j.Policy.SocketNamespaces {
		if &j.Policy.SocketNamespaces[i] == n {
			return i
		}
	}
	return -1
}

// lister returns the first namespace of a device that lists an address, of
// those that have sockets.
func (j *Judge) lister(device int, a netip.Addr) string {
	for i := range j.Policy.SocketNamespaces {
		n := &j.Policy.SocketNamespaces[i]
		if n.Device != j.World.Devices[device].Name || !slices.Contains(n.Addresses, model.AddressRange{First: a, Last: a}) {
			continue
		}
		var names []string
		for _, c := range Cgroups[1:] {
			at := simulatedCgroup + "/" + c
			if name, ok := model.InstanceName(n.Name, n.Each, at); ok && n.Each != "" {
				names = append(names, name)
			}
			if slices.ContainsFunc(n.Members, func(m model.Member) bool { return m.Cgroup == at }) {
				names = append(names, n.Name)
			}
		}
		if len(names) > 0 {
			return slices.Min(names)
		}
	}
	return ""
}
