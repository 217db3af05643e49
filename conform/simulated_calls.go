package conform

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/syscalls"
	"github.com/sockns/sockns/syscalls/simulate"
)

// Applications are those of a world whose kernels are simulated.
type Applications struct {
	packets *Simulation
	calls   *simulate.Calls
}

// Applications puts a policy in force, with the syscall tier or without.
func (w *World) Applications(p *model.Policy, tier bool) *Applications {
	if w.Fresh {
		w = w.Empty()
	}
	facts, calls := w.Facts(p, tier), &syscalls.Program{}
	if tier {
		calls, _ = compiler.CompileSyscalls(p, facts)
	}
	s := &Applications{w.Simulate(compiler.Compile(p, facts)), simulate.New(calls)}
	s.calls.Receiver = func(netns uint64, protocol syscalls.Protocols, to netip.AddrPort) ([]uint64, bool) {
		for p, bit := range protocolBits {
			if bit != protocol {
				continue
			}
			if l := w.Receiver(int(netns)-1, p, to); l != nil {
				return cgroupIDs(l.Cgroup), true
			}
		}
		return nil, false
	}
	s.packets.steer = func(f Flow, from netip.AddrPort) *Listener {
		if i, ok := s.calls.Steer(cookieOf(f.ToDevice), f.Near(), cgroupIDs(f.Cgroup), from, f.To); ok {
			return &w.Listeners[i]
		}
		return nil
	}
	return s
}

// Listen has the sockets of a fresh world listen, one after the other, and
// returns what each sees.
func (s *Applications) Listen() []string {
	w := s.packets.World
	said := make([]string, len(w.Binds))
	for i, l := range w.Binds {
		socket := s.socket(l.bind())
		home := l.Address
		a := s.calls.Bind(socket, home)
		if a.Address.IsValid() {
			home = netip.AddrPortFrom(a.Address, home.Port())
		}
		if said[i] = unix.ErrnoName(a.Error); a.Error == 0 {
			said[i] = w.bound(l.bind(), home)
		}
		if said[i] != Ok {
			continue
		}
		s.calls.Listen(socket, l.Address, len(w.Listeners))
		l.Address = home
		w.add(l)
	}
	return said
}

func (s *Applications) socket(f Flow) simulate.Socket {
	return simulate.Socket{Netns: cookieOf(f.Device), Protocol: protocolBits[f.Protocol], Cgroups: cgroupIDs(f.Cgroup)}
}

var protocolBits = map[model.Protocol]syscalls.Protocols{
	model.TCP: syscalls.TCP, model.UDP: syscalls.UDP, model.SCTP: syscalls.SCTP, model.UDPLite: syscalls.UDPLite,
	model.ICMP: syscalls.ICMP,
}

// Try makes the calls of a flow, and its packets where none fails; it returns
// what the application sees.
func (s *Applications) Try(f Flow) string {
	w := s.packets.World
	socket := s.socket(f)
	if f.Bind.Addr().IsValid() {
		a := s.calls.Bind(socket, f.Bind)
		socket.Local = f.Bind
		if a.Address.IsValid() {
			socket.Local = netip.AddrPortFrom(a.Address, f.Bind.Port())
		}
		switch {
		case f.OnlyBinds() && a.Error != 0:
			return unix.ErrnoName(a.Error)
		case f.OnlyBinds():
			return w.bound(f, socket.Local)
		case a.Error != 0:
			return "bind " + unix.ErrnoName(a.Error)
		}
	}
	call := s.calls.Connect
	if f.SendTo {
		call = s.calls.Send
	}
	a := call(socket, f.To)
	if a.Error != 0 {
		return unix.ErrnoName(a.Error)
	}
	from := socket.Local
	switch {
	case a.Address.IsValid():
		from = netip.AddrPortFrom(a.Address, 0)
	case !from.IsValid():
		from = netip.AddrPortFrom(w.source(f), 0)
	}
	return s.packets.Connect(f, from)
}
