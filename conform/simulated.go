package conform

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/nft/simulate"
)

// Simulation is a world whose kernels are simulated.
type Simulation struct {
	World  *World
	tables []*simulate.Netfilter // by device
	picked int                   // ports, until now
	// steer, if set, returns the listener that a connection is steered to, or nil.
	steer func(f Flow, from netip.AddrPort) *Listener
}

// Simulate puts a compiled policy in force.
func (w *World) Simulate(p *compiler.Program) *Simulation {
	s := &Simulation{World: w, tables: make([]*simulate.Netfilter, len(w.Devices))}
	for i, d := range w.Devices {
		var table *nft.Table
		for _, c := range p.Devices {
			if c.Name == d.Name {
				table = c.Table
			}
		}
		s.tables[i] = simulate.New(table)
	}
	return s
}

// Trace has each rule whose verdict is taken told.
func (s *Simulation) Trace(tell func(device, chain string, rule nft.Rule)) {
	for i, n := range s.tables {
		n.Trace = func(chain string, rule nft.Rule) { tell(s.World.Devices[i].Name, chain, rule) }
	}
}

// Logged has each prefix that is logged told.
func (s *Simulation) Logged(tell func(prefix string)) {
	for _, n := range s.tables {
		n.Log = func(l nft.Log, _ uint32) { tell(l.Prefix) }
	}
}

const tcpSYN = 0x02

var protocolNumbers = map[model.Protocol]uint8{
	model.TCP: unix.IPPROTO_TCP, model.UDP: unix.IPPROTO_UDP, model.SCTP: unix.IPPROTO_SCTP, model.UDPLite: unix.IPPROTO_UDPLITE,
}

// Connect sends the packet that opens a flow from an address, and the answer
// of a datagram; it returns what the application sees. Where the flow binds no
// port, it comes from another one each time: who has the port of a datagram that
// was allowed may go on in its name.
func (s *Simulation) Connect(f Flow, from netip.AddrPort) string {
	if f.Bind.Port() == 0 && f.Protocol.HasPorts() {
		from = netip.AddrPortFrom(from.Addr(), uint16(EphemeralFirst+s.picked%(EphemeralLast-EphemeralFirst+1)))
		s.picked++
	}
	p := simulate.Packet{
		Protocol: protocolNumbers[f.Protocol], Source: from, Dest: f.To,
		TCPFlags: tcpSYN, SCTPInit: true, Cgroups: cgroupIDs(f.Cgroup),
		Priority: 6, // as a program may set it with SO_PRIORITY
		Mark:     f.Mark,
	}
	if f.Protocol == model.ICMP {
		p.Protocol, p.ICMPType = unix.IPPROTO_ICMP, 8
		if f.To.Addr().Is6() {
			p.Protocol, p.ICMPType = unix.IPPROTO_ICMPV6, 128
		}
	}
	var receiver *Listener
	if f.Protocol == model.TCP || f.Protocol == model.UDP {
		if s.steer != nil && f.Protocol == model.TCP {
			receiver = s.steer(f, from)
		}
		if receiver == nil {
			receiver = s.World.Receiver(f.ToDevice, f.Protocol, f.To)
		}
	}
	if seen := s.travel(f, p, receiver); seen != "" {
		return seen
	}
	if receiver == nil {
		return string(model.ECONNREFUSED)
	}
	if f.Protocol == model.UDP {
		back := Flow{Protocol: f.Protocol, Device: f.ToDevice, Cgroup: receiver.Cgroup, To: from, ToDevice: f.Device}
		p := simulate.Packet{Protocol: unix.IPPROTO_UDP, Source: f.To, Dest: from, Cgroups: cgroupIDs(receiver.Cgroup)}
		if seen := s.travel(back, p, &Listener{Cgroup: f.Cgroup}); seen != "" {
			return "answer: " + seen
		}
	}
	return nameOf(receiver.Cgroup)
}

// travel sends a packet through output and input; "" if it arrives.
func (s *Simulation) travel(f Flow, p simulate.Packet, receiver *Listener) string {
	const other = 2 // the index of an interface that is not lo
	p.Out = other
	if f.Near() {
		p.Out = nft.Loopback
	}
	if o := s.tables[f.Device].Run(nft.HookOutput, &p); o.Kind != simulate.Accepted {
		return shown(o, f, true)
	}
	if p.Mark != f.Mark {
		return fmt.Sprintf("sent with mark %#x", p.Mark)
	}
	p.In, p.Out, p.Cgroups = p.Out, 0, nil
	if !f.Near() {
		p.Priority, p.Mark = 0, 0
	}
	mark := p.Mark
	if receiver != nil {
		p.Cgroups = cgroupIDs(receiver.Cgroup)
	}
	if o := s.tables[f.ToDevice].Run(nft.HookInput, &p); o.Kind != simulate.Accepted {
		return shown(o, f, false)
	}
	if p.Mark != mark {
		return fmt.Sprintf("received with mark %#x, not %#x", p.Mark, mark)
	}
	return ""
}

// shown is what the kernel makes of a refused packet: tcp_v4_err, tcp_v6_err,
// __udp4_lib_err and __udp6_lib_err, of a socket that asks for all errors
// (IP_RECVERR).
func shown(o simulate.Outcome, f Flow, output bool) string {
	four := f.To.Addr().Is4()
	ping6 := f.Protocol == model.ICMP && !four // ping_v6_sendmsg forgets the error
	switch {
	case output && f.Protocol != model.TCP && !ping6:
		return string(model.EPERM)
	case ping6 && (o.Code == nft.ICMPXNoRoute || o.Code == nft.ICMPXHostUnreachable) && o.Kind == simulate.Unreachable:
		return Silence // it counts as one that may pass
	case o.Kind == simulate.Dropped:
		return Silence
	case o.Kind == simulate.Reset || o.Code == nft.ICMPXPortUnreachable:
		return string(model.ECONNREFUSED)
	case o.Code == nft.ICMPXNoRoute:
		return string(model.ENETUNREACH)
	case o.Code == nft.ICMPXHostUnreachable, four: // ICMP_PKT_FILTERED is EHOSTUNREACH too
		return string(model.EHOSTUNREACH)
	}
	return string(model.EACCES)
}
