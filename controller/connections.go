package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/sockdiag"
	"github.com/sockns/sockns/syscalls"
)

// RefusedSocket is a socket that exists and that a policy refuses: one end of
// an open TCP connection, a listener, or a UDP socket that is bound where the
// policy lets it not be.
type RefusedSocket struct {
	Device    string          // device namespace
	Namespace string          // socket namespace or instance; empty for an unmanaged socket
	Socket    sockdiag.Socket // as the kernel has it
	Bound     netip.AddrPort  // of a listener and of UDP: what bind(2) asked for
	Why       string          // which end refuses it, by what
	// Own is set if the operator who runs this program has come through it.
	Own bool
}

// Connection reports whether it is an end of a connection. It goes on; one
// that is merely bound is inert.
func (r RefusedSocket) Connection() bool { return !r.Bound.IsValid() }

// Closable reports whether the kernel closes such a socket for somebody else
// (see [sockdiag.Conn.Destroy]): no UDP sockets, and no MPTCP listeners.
func (r RefusedSocket) Closable() bool {
	return r.Socket.Protocol == sockdiag.TCP && (r.Connection() || !r.Socket.Multipath)
}

// String names the socket in one line.
func (r RefusedSocket) String() string {
	what := r.Socket.String()
	if !r.Connection() {
		what = fmt.Sprintf("%s %s %s", r.Socket.Protocol, r.Socket.State, r.Bound)
	}
	return fmt.Sprintf("%s of %s in device namespace %s", what, nameOf(r.Namespace), r.Device)
}

// RefusedSockets lists the sockets that a policy refuses. A connection counts
// as begun by the end that does not have a listener's port.
func (h *Host) RefusedSockets(p *model.Policy, f compiler.Facts) ([]RefusedSocket, error) {
	var refused []RefusedSocket
	err := h.eachRefused(p, f, func(c RefusedSocket, _ *sockdiag.Conn) error {
		refused = append(refused, c)
		return nil
	})
	return refused, err
}

// eachRefused calls do for each socket that a policy refuses.
func (h *Host) eachRefused(p *model.Policy, f compiler.Facts, do func(RefusedSocket, *sockdiag.Conn) error) error {
	devices, err := h.openAll(p)
	if err != nil {
		return err
	}
	asked, err := h.askedFor()
	if err != nil {
		return err
	}
	paths := h.cgroupPaths()
	mine := operator()
	for _, d := range p.DeviceNamespaces {
		dev, ok := devices[d.Name]
		if !ok {
			continue
		}
		conn, err := sockdiag.Dial(dev.ns.NetNS())
		if err != nil {
			return err
		}
		sockets, err := conn.List()
		if err == nil {
			v := viewOf(dev.name, sockets, ownersOf(p, dev.name, f), paths)
			v.asked, v.ephemeral = asked, f.Devices[d.Name].Ephemeral()
			err = v.eachRefused(p, mine, func(c RefusedSocket) error { return do(c, conn) })
		}
		conn.Close()
		if err != nil {
			return fmt.Errorf("device namespace %s: %w", dev.name, err)
		}
	}
	return nil
}

// ownersOf returns the members of one device namespace.
func ownersOf(p *model.Policy, device string, f compiler.Facts) compiler.Members {
	var members []compiler.Member
	names := p.Names()
	for _, m := range f.Members {
		if n := names.Namespace(m.Namespace); n != nil && n.Device == device {
			members = append(members, m)
		}
	}
	return compiler.NewMembers(members)
}

// askedFor returns what listeners asked for that the syscall tier has bound
// elsewhere, by their cookies.
func (h *Host) askedFor() (map[uint64]netip.Addr, error) {
	tier := h.tier
	if tier == nil {
		var err error
		tier, err = syscalls.Open(h.Instance())
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		defer tier.Close()
	}
	return tier.Listeners()
}

// view is the sockets of one device namespace.
type view struct {
	device    string
	sockets   []sockdiag.Socket
	listening map[uint16]bool
	ends      map[[2]netip.AddrPort]sockdiag.Socket // by local and remote address
	members   compiler.Members
	paths     map[uint64]string     // of cgroups
	asked     map[uint64]netip.Addr // see askedFor
	ephemeral model.PortRange
}

func viewOf(device string, sockets []sockdiag.Socket, members compiler.Members, paths map[uint64]string) *view {
	v := &view{
		device: device, members: members, paths: paths,
		listening: make(map[uint16]bool), ends: make(map[[2]netip.AddrPort]sockdiag.Socket),
	}
	for _, s := range sockets {
		v.sockets = append(v.sockets, s)
		if s.Protocol != sockdiag.TCP {
			continue
		}
		if s.State == sockdiag.Listen {
			v.listening[s.Local.Port()] = true
		}
		v.ends[[2]netip.AddrPort{s.Local, s.Remote}] = s
	}
	return v
}

func (v *view) owner(s sockdiag.Socket) string { return v.members.Owner(v.paths[s.CgroupID]) }

func (v *view) eachRefused(p *model.Policy, mine operatorSockets, do func(RefusedSocket) error) error {
	for _, s := range v.sockets {
		r, refused := v.refusedBind(p, s)
		if connected(s) {
			r, refused = v.refusedConnection(p, mine, s)
		}
		if !refused {
			continue
		}
		if err := do(r); err != nil {
			return err
		}
	}
	return nil
}

func (v *view) refusedConnection(p *model.Policy, mine operatorSockets, s sockdiag.Socket) (RefusedSocket, bool) {
	flow, inbound := v.flow(s)
	d := model.Decide(p, flow)
	return RefusedSocket{
		Device: v.device, Namespace: v.owner(s), Socket: s, Why: whyRefused(d, flow),
		Own: inbound && mine.has(s),
	}, !d.Allowed()
}

// refusedBind decides about a listener and a UDP socket. The kernel may have
// picked a port of its range, which no rule needs to allow.
func (v *view) refusedBind(p *model.Policy, s sockdiag.Socket) (r RefusedSocket, refused bool) {
	proto := model.TCP
	switch {
	case s.Protocol == sockdiag.UDP && s.Local.Port() != 0:
		proto = model.UDP
	case s.Protocol != sockdiag.TCP || s.State != sockdiag.Listen:
		return r, false
	}
	r = RefusedSocket{Device: v.device, Namespace: v.owner(s), Socket: s, Bound: s.Local}
	if a, ok := v.asked[s.Cookie]; ok {
		r.Bound = netip.AddrPortFrom(a, s.Local.Port())
	}
	verdict := model.DecideBind(p, r.Namespace, proto, r.Bound)
	if !verdict.Refuses() {
		return r, false
	}
	port := r.Bound.Port()
	if picked := v.ephemeral.First <= port && port <= v.ephemeral.Last; picked && verdict.Rule == nil {
		at := netip.AddrPortFrom(r.Bound.Addr(), 0)
		if verdict = model.DecideBind(p, r.Namespace, proto, at); !verdict.Refuses() {
			return r, false
		}
	}
	r.Why = whyVerdict(verdict, r.Namespace)
	return r, true
}

// connected reports whether a TCP socket has a connection that could carry data.
func connected(s sockdiag.Socket) bool {
	if s.Protocol != sockdiag.TCP {
		return false
	}
	switch s.State {
	case sockdiag.Established, sockdiag.SynSent, sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.CloseWait:
		return true
	}
	return false
}

// flow reconstructs the flow that began a connection, and whether this end
// accepted it.
func (v *view) flow(s sockdiag.Socket) (f model.Flow, inbound bool) {
	us := model.End{Device: v.device, Namespace: v.owner(s), Address: s.Local}
	them := model.End{Address: s.Remote}
	if peer, here := v.ends[[2]netip.AddrPort{s.Remote, s.Local}]; here {
		them.Device, them.Namespace = v.device, v.owner(peer)
	}
	f = model.Flow{Protocol: model.TCP, From: us, To: them}
	if v.listening[s.Local.Port()] && !(them.Device != "" && v.listening[s.Remote.Port()]) {
		f.From, f.To, inbound = them, us, true
	}
	// The connecting end's port was the kernel's choice as far as can be told.
	f.From.Address = netip.AddrPortFrom(f.From.Address.Addr(), 0)
	return f, inbound
}

// whyRefused says which end refuses a flow, and by which rule.
func whyRefused(d model.Decision, f model.Flow) string {
	for _, end := range []struct {
		model.Verdict
		namespace string
	}{{d.FromBind, f.From.Namespace}, {d.Connect, f.From.Namespace}, {d.ToBind, f.To.Namespace}, {d.Accept, f.To.Namespace}} {
		if end.Refuses() {
			return whyVerdict(end.Verdict, end.namespace)
		}
	}
	return ""
}

func whyVerdict(v model.Verdict, namespace string) string {
	if v.Rule != nil {
		return fmt.Sprintf("%s of %s refuses it (%s)", v.Hook, namespace, v.Rule.Pos)
	}
	return fmt.Sprintf("no %s rule of %s allows it", v.Hook, namespace)
}

func nameOf(namespace string) string {
	if namespace == "" {
		return "an unmanaged process"
	}
	return namespace
}
