package conform

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sockns/sockns/model"
)

// Flow is a try of one socket: it binds, or it connects or sends, bound before or not.
type Flow struct {
	Protocol model.Protocol
	Device   int
	Cgroup   string
	// Bind is what it binds first. The zero Addr: nothing.
	Bind netip.AddrPort
	// SendTo has a datagram sent without connect(2).
	SendTo bool
	// Mark is what the socket marks its packets with (SO_MARK): rules of ours keep
	// something of their own there, and have to give it back.
	Mark uint32
	// To is where it goes, in ToDevice. The zero value: it only binds.
	To       netip.AddrPort
	ToDevice int
}

// OnlyBinds reports whether nothing is sent.
func (f Flow) OnlyBinds() bool { return !f.To.IsValid() }

// Near reports whether the flow stays in one network namespace, and so goes through lo.
func (f Flow) Near() bool { return f.Device == f.ToDevice }

// String describes the flow as scenarios do.
func (f Flow) String() string { return f.in(func(d int) string { return fmt.Sprint(d) }) }

func (f Flow) in(device func(int) string) string {
	who := f.Cgroup
	if who == "" {
		who = "-"
	}
	if f.Device != 0 {
		who += "@" + device(f.Device)
	}
	if f.OnlyBinds() {
		return fmt.Sprintf("bind %s %s %s", who, f.Protocol, f.Bind)
	}
	from := ""
	switch {
	case !f.Bind.Addr().IsValid():
	case f.Bind.Port() == 0:
		from = "from " + f.Bind.Addr().String() + " "
	default:
		from = "from " + f.Bind.String() + " "
	}
	verb := "connect"
	if f.SendTo {
		verb = "sendto"
	}
	marked := ""
	if f.Mark != 0 {
		marked = fmt.Sprintf(", marked %#x", f.Mark)
	}
	return fmt.Sprintf("%s %s %s %s%s%s", verb, who, f.Protocol, from, f.To, marked)
}

// Aim is what flows are drawn from.
type Aim struct {
	Judge     *Judge
	Protocols []model.Protocol
	Binds     bool // some only bind
	managed   struct {
		places    []place
		listeners []int
	}
}

// place is where a socket is created.
type place struct {
	device int
	cgroup string
}

// NewAim returns flows under a policy.
func NewAim(j *Judge, protocols []model.Protocol, binds bool) *Aim {
	a := &Aim{Judge: j, Protocols: protocols, Binds: binds}
	for d := range j.World.Devices {
		for _, c := range Cgroups {
			if j.World.Owner(j.Policy, d, c) != "" {
				a.managed.places = append(a.managed.places, place{d, c})
			}
		}
	}
	for i, l := range j.World.Listeners {
		if j.World.Owner(j.Policy, l.Device, l.Cgroup) != "" {
			a.managed.listeners = append(a.managed.listeners, i)
		}
	}
	return a
}

// marks are those of others: fwmarks of a mesh and of a VPN, and what looks like ours.
var marks = []uint32{1, 0x4000, 0xca6c, 1 << 31, 1<<32 - 1}

// Draw draws a flow with pick, which returns a number below its argument. Most
// begin at a socket namespace, most end at one, and most of those that do
// both stay in one device namespace.
func (a *Aim) Draw(pick func(n int) int) Flow {
	w := a.Judge.World
	at := place{pick(len(w.Devices)), Cgroups[pick(len(Cgroups))]}
	if n := len(a.managed.places); n > 0 && pick(4) > 0 {
		at = a.managed.places[pick(n)]
	}
	f := Flow{Protocol: a.Protocols[pick(len(a.Protocols))], Device: at.device, Cgroup: at.cgroup}
	if a.Binds && pick(8) == 0 {
		addrs := append(w.localAddresses(f.Device), netip.IPv4Unspecified(), netip.IPv6Unspecified())
		port := uint16(0)
		if pick(8) > 0 {
			port = ports[pick(len(ports))]
		}
		f.Bind = netip.AddrPortFrom(addrs[pick(len(addrs))], port)
		return f
	}
	a.target(&f, pick)
	f.SendTo = f.Protocol == model.UDP && pick(3) == 0
	if pick(4) == 0 {
		f.Mark = marks[pick(len(marks))]
	}
	if pick(4) == 0 {
		w.bindFirst(&f, pick)
	}
	return f
}

// target draws where a flow goes: most often where somebody listens.
func (a *Aim) target(f *Flow, pick func(int) int) {
	w := a.Judge.World
	for n := 0; n < 8 && len(w.Listeners) > 0; n++ {
		l := w.Listeners[pick(len(w.Listeners))]
		if n := len(a.managed.listeners); n > 0 && pick(4) > 0 {
			l = w.Listeners[a.managed.listeners[pick(n)]]
		}
		addr := l.target().Addr()
		if addr.IsUnspecified() {
			addrs := w.localAddresses(l.Device)
			if addr = addrs[pick(len(addrs))]; addr.Is4() != l.Address.Addr().Is4() {
				continue
			}
		}
		near := l.Device == f.Device
		if l.Protocol != f.Protocol && visible(f.Protocol) || !near && (addr.IsLoopback() || pick(3) > 0) {
			continue
		}
		f.To, f.ToDevice = netip.AddrPortFrom(addr, l.Address.Port()), l.Device
		return
	}
	f.ToDevice = f.Device
	addrs, closed := w.localAddresses(f.Device), ports
	if f.Protocol == model.UDP {
		closed = unboundPorts
	}
	f.To = netip.AddrPortFrom(addrs[pick(len(addrs))], closed[pick(len(closed))])
}

// unboundPorts are those that no sender of datagrams binds: what is sent to a
// port where nobody listens is not to meet one.
var unboundPorts = []uint16{2, 65534}

// bindFirst has the flow bind an address that can reach where it goes, and
// that no listener has.
func (w *World) bindFirst(f *Flow, pick func(int) int) {
	sources := w.Devices[f.Device].Addresses
	if f.Near() {
		sources = w.localAddresses(f.Device)
	}
	from := netip.AddrPortFrom(sources[pick(len(sources))], 0)
	if pick(3) > 0 {
		from = netip.AddrPortFrom(from.Addr(), ports[pick(len(ports))])
	}
	if from.Addr().Is4() != f.To.Addr().Is4() || from == f.To || slices.Contains(unboundPorts, from.Port()) ||
		from.Port() != 0 && w.Receiver(f.Device, f.Protocol, from) != nil {
		return
	}
	f.Bind = from
}
