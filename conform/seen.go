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
}

// Seen is what an application may see, and the decision that it follows from.
type Seen struct {
	Decision model.Decision
	Outcomes []string // one, but where the tier can't tell and the packets can
}

// Flow returns the flow in the words of the model.
func (j *Judge) Flow(f Flow) model.Flow {
	m := model.Flow{Protocol: f.Protocol, From: j.end(f.Device, f.Cgroup), To: j.end(f.ToDevice, "")}
	if l := j.World.Receiver(f.ToDevice, f.Protocol, f.To); l != nil {
		m.To = j.end(f.ToDevice, l.Cgroup)
	}
	m.To.Address = f.To
	m.From.Address = f.Bind
	m.From.Picked = j.picked(f, m.From)
	return m
}

func (j *Judge) end(device int, cgroup string) model.End {
	e := model.End{Namespace: j.World.Owner(j.Policy, device, cgroup)}
	if d := j.World.Devices[device]; d.Managed {
		e.Device = d.Name
	}
	return e
}

// answers reports whether the syscall tier answers for an end.
func (j *Judge) answers(e model.End) *model.SocketNamespace {
	n := j.Policy.Namespace(e.Namespace)
	if !j.Calls || e.Namespace == "" || n.Mode == model.Audit {
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
	if n := j.answers(from); n != nil && !to.IsLoopback() {
		for _, a := range n.Addresses {
			if a.First == a.Last && a.First.Is4() == to.Is4() && slices.Contains(j.World.Devices[f.Device].Addresses, a.First) {
				return a.First
			}
		}
	}
	switch {
	case to.IsLoopback() && to.Is4():
		return loopbacks[0] // the source of the route to 127.0.0.0/8
	case f.Near():
		return to
	}
	i := slices.IndexFunc(j.World.Devices[f.Device].Addresses, func(a netip.Addr) bool { return a.Is4() == to.Is4() })
	return j.World.Devices[f.Device].Addresses[i]
}

// Packets returns what an application sees where packets alone decide, as
// docs/errors.md and docs/limits.md say.
func (j *Judge) Packets(f Flow) Seen {
	m := j.Flow(f)
	visible := j.visible(f.Protocol)
	output := !f.Near() || !visible // where the connecting end refuses
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
		return see(packetError(model.ECONNREFUSED, f, output))
	case d.Connect.Refuses():
		return see(packetError(d.Connect.Error, f, output))
	case visible && j.inert(m.To.Namespace, f.Protocol, f.To, false):
		return see(packetError(model.ECONNREFUSED, f, false))
	case d.Accept.Refuses():
		return see(packetError(d.Accept.Error, f, false))
	}
	return see(j.reached(f))
}

// visible reports whether packets show the receiving socket.
func (j *Judge) visible(p model.Protocol) bool { return p == model.TCP || p == model.UDP }

// reached is what is seen of a flow that nothing refuses.
func (j *Judge) reached(f Flow) string {
	if l := j.World.Receiver(f.ToDevice, f.Protocol, f.To); l != nil {
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
// errno, in output or in input.
func packetError(e model.Errno, f Flow, output bool) string {
	switch {
	case f.Protocol != model.TCP && output:
		return string(model.EPERM) // from send(2)
	case e == model.ETIMEDOUT:
		return Silence
	case e == model.EACCES || e == model.EPERM:
		if f.To.Addr().Is4() {
			return string(model.EHOSTUNREACH)
		}
		return string(model.EACCES)
	}
	return string(e)
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
