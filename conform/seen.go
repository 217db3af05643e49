package conform

import (
	"net/netip"
	"slices"

	"github.com/sockns/sockns/model"
)

// Ok is what is seen of a bind(2) that succeeds, and Silence of what is never
// answered. Other outcomes are the name of an errno, or the cgroup of the
// listener that answered; [Nobody] is that of none.
const (
	Ok      = "ok"
	Silence = "silence"
	Nobody  = "-"
)

func nameOf(cgroup string) string {
	if cgroup == "" {
		return Nobody
	}
	return cgroup
}

// Judge says what applications see under a policy.
type Judge struct {
	World  *World
	Policy *model.Policy
	Calls  bool // the syscall tier is there

	claims map[claim]string // who asked for a loopback address first
	hidden []string         // the namespaces that have a hidden address
}

// Seen is what an application may see, and the decision that it follows from.
type Seen struct {
	Decision model.Decision
	Outcomes []string // one, but where the tier can't tell and the packets can
}

// Flow returns the flow in the words of the model.
func (j *Judge) Flow(f Flow) model.Flow {
	m := model.Flow{Protocol: f.Protocol, From: j.end(f.Device, f.Cgroup), To: j.end(f.ToDevice, "")}
	m.From.Address = f.Bind
	m.From.Picked = j.picked(f, m.From)
	m.To.Address = f.To
	if l := j.receiver(f, m.From); l != nil {
		m.To.Namespace = j.World.Owner(j.Policy, f.ToDevice, l.Cgroup)
	}
	return m
}

func (j *Judge) end(device int, cgroup string) model.End {
	e := model.End{Namespace: j.World.Owner(j.Policy, device, cgroup)}
	if d := j.World.Devices[device]; d.Managed {
		e.Device = d.Name
	}
	return e
}

// answers returns the namespace of an end whose calls the syscall tier answers.
func (j *Judge) answers(e model.End) *model.SocketNamespace {
	n := j.Policy.Namespace(e.Namespace)
	if !j.Calls || e.Namespace == "" {
		return nil
	}
	return n
}

// picked returns the source address of a flow that binds none.
func (j *Judge) picked(f Flow, from model.End) netip.Addr {
	if f.Bind.Addr().IsValid() || f.OnlyBinds() {
		return netip.Addr{}
	}
	to := f.To.Addr()
	if n := j.answers(from); n != nil && n.Mode != model.Audit && !to.IsLoopback() {
		if own := ownSource(n, to.Is4()); slices.Contains(j.World.Devices[f.Device].Addresses, own) {
			return own
		}
	}
	return j.World.source(f)
}

// ownSource returns the first address of a family that a namespace lists.
func ownSource(n *model.SocketNamespace, four bool) netip.Addr {
	for _, a := range n.Addresses {
		if a.First == a.Last && a.First.Is4() == four && !a.First.IsLoopback() {
			return a.First
		}
	}
	return netip.Addr{}
}

// Seen returns what an application sees.
func (j *Judge) Seen(f Flow) Seen {
	m := j.Flow(f)
	n := j.answers(m.From)
	switch {
	case f.OnlyBinds():
		s, _ := j.bind(f)
		return s
	case n == nil:
		return j.Packets(f)
	}
	return j.calls(f, m, n)
}

// calls returns what system calls of a namespace answer, and what packets tell
// where calls don't.
func (j *Judge) calls(f Flow, m model.Flow, n *model.SocketNamespace) Seen {
	d := model.Decide(j.Policy, m)
	if f.Bind.Addr().IsValid() {
		bound := f
		bound.To = netip.AddrPort{}
		if s, _ := j.bind(bound); s.Outcomes[0] != Ok {
			return Seen{d, []string{"bind " + s.Outcomes[0]}}
		}
	}
	// A datagram of a socket that is bound may be an answer.
	answering := f.Protocol == model.UDP && f.Bind.Addr().IsValid() && (!f.SendTo || f.Bind.Port() != 0)
	s := j.Packets(f)
	switch {
	case answering:
		return s
	case d.Connect.Refuses() && j.unknown(f, m, n):
		s.Outcomes = append(s.Outcomes, string(d.Connect.Error))
	case d.Connect.Refuses():
		s = Seen{d, []string{string(d.Connect.Error)}}
	case f.Near() && d.Accept.Refuses() && d.Accept.Error != model.ETIMEDOUT:
		s = Seen{d, []string{string(d.Accept.Error)}}
	}
	return s
}

// unknown reports whether a call can't tell which rule decides, because the
// kernel has yet to pick the local address that one of them names.
func (j *Judge) unknown(f Flow, m model.Flow, n *model.SocketNamespace) bool {
	if f.Bind.Addr().IsValid() || f.Near() || m.From.Picked == ownSource(n, f.To.Addr().Is4()) {
		return false
	}
	return slices.ContainsFunc(n.Connect, func(r model.Rule) bool { return len(r.Local) > 0 })
}

// bindError is the errno of a refused bind: one for a port that a socket of
// another namespace holds is the kernel's to know.
func (j *Judge) bindError(v model.Verdict, n *model.SocketNamespace, namespace string, f Flow) model.Errno {
	named := v.Rule != nil && v.Rule.Error != "" || v.Rule == nil && n.Default.Bind != nil && n.Default.Bind.Error != ""
	if named || v.Error != model.EACCES || f.Bind.Addr().IsUnspecified() {
		return v.Error
	}
	if j.heldByOther(f, namespace) {
		return model.EADDRINUSE
	}
	return v.Error
}

// heldByOther reports whether a socket that is not the namespace's gets what is
// sent to the address that a flow binds.
func (j *Judge) heldByOther(f Flow, namespace string) bool {
	l := j.World.Receiver(f.Device, f.Protocol, f.Bind)
	return l != nil && j.World.Owner(j.Policy, f.Device, l.Cgroup) != namespace
}

// Packets returns what an application sees where packets alone decide, as
// docs/errors.md and docs/limits.md say.
func (j *Judge) Packets(f Flow) Seen {
	m := j.Flow(f)
	output := !f.Near() || !visible(f.Protocol) // where the connecting end refuses
	from := j.Source(f)
	same := !output && from.Addr() == f.To.Addr()
	switch {
	case output && !m.From.Address.IsValid():
		// What leaves does not say that the kernel picked its address.
		m.From.Address = netip.AddrPortFrom(m.From.Picked, 0)
	case same:
		// Nor does a datagram to a local address say that it did not.
		m.From.Address, m.From.Picked = netip.AddrPort{}, from.Addr()
	}
	d := model.Decide(j.Policy, m)
	see := func(outcome string) Seen { return Seen{d, []string{outcome}} }
	switch {
	case j.inert(m.From.Namespace, f.Protocol, from, same):
		return see(packetError(model.Connect, model.ECONNREFUSED, f))
	case d.Connect.Refuses():
		return see(packetError(model.Connect, d.Connect.Error, f))
	case visible(f.Protocol) && j.inert(m.To.Namespace, f.Protocol, f.To, false):
		return see(packetError(model.Accept, model.ECONNREFUSED, f))
	case d.Accept.Refuses():
		return see(packetError(model.Accept, d.Accept.Error, f))
	}
	return see(j.reached(f))
}

// visible reports whether packets show the receiving socket.
func visible(p model.Protocol) bool { return p == model.TCP || p == model.UDP }

// reached is what is seen of a flow that nothing refuses.
func (j *Judge) reached(f Flow) string {
	from := j.end(f.Device, f.Cgroup)
	from.Address, from.Picked = f.Bind, j.picked(f, from)
	if l := j.receiver(f, from); l != nil {
		return nameOf(l.Cgroup)
	}
	return string(model.ECONNREFUSED)
}

// inert reports whether packets of a socket of a namespace with this local
// address are refused. Packets do not say whether the kernel picked a port, so
// one that it may have picked is refused by rules only. With same, the address
// is the destination's too, and counts as the namespace's own.
func (j *Judge) inert(namespace string, protocol model.Protocol, local netip.AddrPort, same bool) bool {
	n := j.Policy.Namespace(namespace)
	if namespace == "" || n == nil || n.Mode == model.Audit {
		return false
	}
	own := same || len(n.Addresses) == 0 || local.Addr().IsLoopback() || contains(n.Addresses, local.Addr())
	for i := range n.Bind {
		r := &n.Bind[i]
		if r.Audit || !covers(r, protocol, local.Port()) {
			continue
		}
		matches := len(r.Local) == 0 && own
		for _, l := range r.Local {
			matches = matches || l.Kind == model.PeerAny || contains(j.Policy.PeerAddresses(l, n), local.Addr())
		}
		if matches {
			return r.Action == model.Deny
		}
	}
	denies := len(n.Bind) > 0
	if d := n.Default.Bind; d != nil {
		denies = d.Action == model.Deny
	}
	mayBePicked := !protocol.HasPorts() || EphemeralFirst <= local.Port() && local.Port() <= EphemeralLast
	return !own || denies && !mayBePicked
}

func contains(ranges []model.AddressRange, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r model.AddressRange) bool { return r.Contains(a) })
}

func covers(r *model.Rule, protocol model.Protocol, port uint16) bool {
	if len(r.Protocols) > 0 && !slices.Contains(r.Protocols, protocol) || len(r.Ports) > 0 && !protocol.HasPorts() {
		return false
	}
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p model.PortRange) bool { return p.Contains(port) })
}

// packetError is what an application sees of a packet that is refused with an
// errno, by the connecting or the accepting end.
func packetError(h model.Hook, e model.Errno, f Flow) string {
	s := model.Refusal{
		Hook: h, Error: e, Protocol: f.Protocol, IPv6: f.To.Addr().Is6(), Loopback: f.Near() && visible(f.Protocol),
	}.Packets()
	switch s.When {
	case model.Silence:
		return Silence
	case model.Unknown: // SCTP: what output hooks return
		return string(model.EPERM)
	}
	return string(s.Errno)
}

// Source returns the address and port that a flow's packets come from; the
// port stands for any that the kernel may pick.
func (j *Judge) Source(f Flow) netip.AddrPort {
	from := f.Bind
	if !from.Addr().IsValid() {
		from = netip.AddrPortFrom(j.picked(f, j.end(f.Device, f.Cgroup)), 0)
	}
	if from.Port() == 0 && f.Protocol.HasPorts() {
		from = netip.AddrPortFrom(from.Addr(), EphemeralFirst)
	}
	return from
}
