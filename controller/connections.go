package controller

import (
	"fmt"
	"net/netip"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/sockdiag"
)

// Connection is one end of an open TCP connection that a policy refuses: it
// stays open unless it is closed, but could not be made again.
type Connection struct {
	Device    string          // device namespace
	Namespace string          // socket namespace or instance; empty for an unmanaged socket
	Socket    sockdiag.Socket // this end
	Why       string          // which end refuses it, by what
	// Own is set if the operator who runs this program has come through it.
	Own bool
}

// String names the connection in one line.
func (c Connection) String() string {
	return fmt.Sprintf("%s of %s in device namespace %s", c.Socket, nameOf(c.Namespace), c.Device)
}

// RefusedConnections lists the open connections that a policy refuses. A
// connection counts as begun by the end that does not have a listener's port.
func (h *Host) RefusedConnections(p *model.Policy, f compiler.Facts) ([]Connection, error) {
	var refused []Connection
	err := h.eachRefused(p, f, func(c Connection, _ *sockdiag.Conn) error {
		refused = append(refused, c)
		return nil
	})
	return refused, err
}

// eachRefused calls do for each open connection that a policy refuses.
func (h *Host) eachRefused(p *model.Policy, f compiler.Facts, do func(Connection, *sockdiag.Conn) error) error {
	devices, err := h.openAll(p)
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
			err = v.eachRefused(p, mine, func(c Connection) error { return do(c, conn) })
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

// view is the TCP sockets of one device namespace.
type view struct {
	device    string
	sockets   []sockdiag.Socket
	listening map[uint16]bool
	ends      map[[2]netip.AddrPort]sockdiag.Socket // by local and remote address
	members   compiler.Members
	paths     map[uint64]string // of cgroups
}

func viewOf(device string, sockets []sockdiag.Socket, members compiler.Members, paths map[uint64]string) *view {
	v := &view{
		device: device, members: members, paths: paths,
		listening: make(map[uint16]bool), ends: make(map[[2]netip.AddrPort]sockdiag.Socket),
	}
	for _, s := range sockets {
		if s.Protocol != sockdiag.TCP {
			continue
		}
		if s.State == sockdiag.Listen {
			v.listening[s.Local.Port()] = true
		}
		v.ends[[2]netip.AddrPort{s.Local, s.Remote}] = s
		v.sockets = append(v.sockets, s)
	}
	return v
}

func (v *view) owner(s sockdiag.Socket) string { return v.members.Owner(v.paths[s.CgroupID]) }

func (v *view) eachRefused(p *model.Policy, mine operatorSockets, do func(Connection) error) error {
	for _, s := range v.sockets {
		if !connected(s) {
			continue
		}
		flow, inbound := v.flow(s)
		d := model.Decide(p, flow)
		if d.Allowed() {
			continue
		}
		err := do(Connection{
			Device: v.device, Namespace: v.owner(s), Socket: s, Why: whyRefused(d, flow),
			Own: inbound && mine.has(s),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// connected reports whether a TCP socket has a connection that could carry data.
func connected(s sockdiag.Socket) bool {
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
		switch {
		case !end.Refuses():
		case end.Rule != nil:
			return fmt.Sprintf("%s of %s refuses it (%s)", end.Hook, end.namespace, end.Rule.Pos)
		default:
			return fmt.Sprintf("no %s rule of %s allows it", end.Hook, end.namespace)
		}
	}
	return ""
}

func nameOf(namespace string) string {
	if namespace == "" {
		return "an unmanaged process"
	}
	return namespace
}
