// Package simulate answers bind(2), connect(2) and sendto(2) from the values
// of a [syscalls.Program] as the programs in syscalls/program do, without a
// kernel: for tests that ask what a compiled policy says to many calls. It is
// written from what these programs mean, and the tests of package conform hold
// both against the kernel.
package simulate

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/syscalls"
)

// Socket is what the programs can see of a socket that makes a call.
type Socket struct {
	Netns    uint64 // cookie
	Protocol syscalls.Protocols
	// Cgroups are the ids of the cgroup that the socket was created in and of
	// those above it; the first is a child of the root.
	Cgroups []uint64
	// Local is what it is bound to; the zero value: nothing, and the zero port:
	// one that the kernel picks.
	Local netip.AddrPort
}

// Answer is what a program does to a call.
type Answer struct {
	// Error is the errno that the call fails with; 0: the kernel goes on.
	Error unix.Errno
	// Address is the one that bind(2) uses instead of what it was asked for, or
	// that a connection or datagram comes from; the zero Addr: nothing changes.
	Address netip.Addr
}

// Calls answers calls by a program, and steers TCP connections. IPv6 sockets
// are of one family alone (IPV6_V6ONLY), and none has SO_REUSEPORT. It is not
// safe for concurrent use.
type Calls struct {
	program   *syscalls.Program
	members   map[uint64]syscalls.Member
	locals    map[syscalls.Local]uint32 // the owner, by the others
	listeners []listener
	claims    map[claim]uint32
	// Receiver returns the cgroups of the socket that gets what is sent to an
	// address; found is false if none does.
	Receiver func(netns uint64, protocol syscalls.Protocols, to netip.AddrPort) (cgroups []uint64, found bool)
}

// New returns a program at work, in a world without sockets.
func New(p *syscalls.Program) *Calls {
	c := &Calls{program: p, members: make(map[uint64]syscalls.Member), locals: make(map[syscalls.Local]uint32), claims: make(map[claim]uint32)}
	for _, m := range p.Members {
		c.members[m.Cgroup] = m
	}
	for _, l := range p.Locals {
		c.locals[syscalls.Local{Netns: l.Netns, Address: l.Address}] = l.Owner
	}
	c.Receiver = func(uint64, syscalls.Protocols, netip.AddrPort) ([]uint64, bool) { return nil, false }
	return c
}

// member returns whose socket it is: the deepest member of its network
// namespace, passing over those of others.
func (c *Calls) member(netns uint64, cgroups []uint64) (syscalls.Member, bool) {
	for _, id := range slices.Backward(cgroups) {
		if m, ok := c.members[id]; ok && m.Netns == netns {
			return m, true
		}
	}
	return syscalls.Member{}, false
}

// receiver returns whose socket gets what is sent to an address; identity 0 is
// nobody's.
func (c *Calls) receiver(s Socket, to netip.AddrPort) (m syscalls.Member, found bool) {
	cgroups, found := c.Receiver(s.Netns, s.Protocol, to)
	if found {
		m, _ = c.member(s.Netns, cgroups)
	}
	return m, found
}

func (c *Calls) isLocal(netns uint64, a syscalls.Address) bool {
	_, ok := c.locals[syscalls.Local{Netns: netns, Address: a}]
	return ok
}

func (c *Calls) policy(m syscalls.Member) *syscalls.Policy { return &c.program.Policies[m.Policy] }

func (c *Calls) entries(s syscalls.Span) []syscalls.Entry {
	return c.program.Entries[s.First : s.First+s.Count]
}

// owns reports whether an address is one of a namespace's own.
func (c *Calls) owns(p *syscalls.Policy, a netip.Addr) bool {
	return p.Flags&syscalls.OwnsAll != 0 || a.IsLoopback() || inTable(c.program.Ranges, p.Own, syscalls.AddressOf(a))
}

// Bind answers bind(2).
func (c *Calls) Bind(s Socket, to netip.AddrPort) Answer {
	me, managed := c.member(s.Netns, s.Cgroups)
	if !managed {
		return Answer{}
	}
	p := c.policy(me)
	wildcard := to.Addr().IsUnspecified()
	q := question{ranges: c.program.Ranges, identity: me.Identity, protocol: s.Protocol, port: to.Port(), localKnown: true, local: syscalls.AddressOf(to.Addr())}
	q.own = wildcard || c.owns(p, to.Addr())
	if q.port != 0 || !q.own {
		if wildcard { // only a rule without a local address speaks of it
			q.local = syscalls.Address{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}
		}
		v := q.ask(c.entries(p.Bind))
		elsewhere := v.isDefault && !q.own
		if (v.action == syscalls.Deny || elsewhere) && !me.Audit {
			errno := v.errno
			if elsewhere {
				errno = unix.EADDRNOTAVAIL
			}
			if errno == 0 {
				errno = c.bindError(s, me, q.own, to)
			}
			return Answer{Error: errno}
		}
	}
	if me.Audit {
		return Answer{}
	}
	if s.Protocol == syscalls.TCP && to.Port() != 0 && c.conflicts(s, me, to) {
		return Answer{Error: unix.EADDRINUSE}
	}
	return Answer{Address: c.home(s, me, to)}
}

// bindError is the errno of a denied bind whose rule names none.
func (c *Calls) bindError(s Socket, me syscalls.Member, own bool, to netip.AddrPort) unix.Errno {
	p, wildcard := c.policy(me), to.Addr().IsUnspecified()
	udp := 0
	switch {
	case !own:
		return unix.EADDRNOTAVAIL
	case to.Port() == 0:
		return unix.EACCES
	case s.Protocol == syscalls.UDP:
		udp = 1
	case s.Protocol != syscalls.TCP:
		return unix.EACCES
	}
	overlaps := to.Addr().IsLoopback() || wildcard && p.Flags&syscalls.OwnsAll != 0
	port := syscalls.Address{3: uint32(to.Port())}
	if inTable(c.program.Ranges, p.Taken[udp], port) || overlaps && inTable(c.program.Ranges, p.Taken[2+udp], port) {
		return unix.EADDRINUSE
	}
	if holder, found := c.receiver(s, to); !wildcard && found && holder.Identity != me.Identity {
		return unix.EADDRINUSE
	}
	return unix.EACCES
}

// home returns where a socket is bound in place of the wildcard, or of 127.0.0.1
// beside another's.
func (c *Calls) home(s Socket, me syscalls.Member, to netip.AddrPort) netip.Addr {
	p, four := c.policy(me), to.Addr().Is4()
	steered := s.Protocol == syscalls.TCP && to.Port() != 0
	hidden := netip.AddrFrom4([4]byte{127, 64 | byte(me.Identity>>16&0x3f), byte(me.Identity >> 8), byte(me.Identity)})
	if !to.Addr().IsUnspecified() {
		if steered && to.Addr() == loopback4 && c.shares(s, me, to) {
			return hidden
		}
		return netip.Addr{}
	}
	own, one := p.Source6, syscalls.OneAddress6
	if four {
		own, one = p.Source4, syscalls.OneAddress4
	}
	switch {
	case p.Flags&syscalls.OwnsAll != 0:
	case !steered && p.Flags&one != 0, steered && c.isLocal(s.Netns, own):
		return addrOf(own)
	case steered && four:
		return hidden
	}
	return netip.Addr{}
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Connect answers connect(2).
func (c *Calls) Connect(s Socket, to netip.AddrPort) Answer {
	return c.reach(s, to, s.Protocol == syscalls.UDP && s.Local.Addr().IsValid(), s.Protocol == syscalls.TCP)
}

// Send answers a sendto(2) of a socket that is not connected and has yet to
// receive something.
func (c *Calls) Send(s Socket, to netip.AddrPort) Answer {
	return c.reach(s, to, s.Local.Port() != 0, false)
}

// reach answers a call that goes to an address; with answers it may send the
// answer to a datagram, which the packets' rules know; with steered its
// receiver may be.
func (c *Calls) reach(s Socket, to netip.AddrPort, answers, steered bool) Answer {
	me, managed := c.member(s.Netns, s.Cgroups)
	if !managed {
		return Answer{}
	}
	p, bound := c.policy(me), s.Local.Addr().IsValid()
	loopback := to.Addr().IsLoopback()
	near := loopback || c.isLocal(s.Netns, syscalls.AddressOf(to.Addr()))
	local := s.Local.Addr()
	var a Answer
	if !bound && !loopback && p.Flags&syscalls.OwnsAll == 0 && !me.Audit {
		own := p.Source6
		if to.Addr().Is4() {
			own = p.Source4
		}
		if c.isLocal(s.Netns, own) {
			local = addrOf(own)
			a.Address = local
		}
	}
	if !local.IsValid() && near { // the kernel picks it so
		local = to.Addr()
		if loopback && local.Is4() {
			local = loopback4
		}
	}
	q := question{
		ranges: c.program.Ranges, identity: me.Identity, protocol: s.Protocol, port: to.Port(),
		local: syscalls.AddressOf(local), localKnown: local.IsValid(),
		peer: syscalls.AddressOf(to.Addr()), identified: near && s.Protocol&(syscalls.TCP|syscalls.UDP) != 0,
	}
	q.own = !q.localKnown || !bound || c.owns(p, local)
	var them syscalls.Member
	if q.identified {
		if l := c.steer(s.Netns, true, me, local, to); steered && l != nil {
			them, _ = c.member(l.netns, l.cgroups)
		} else {
			them, _ = c.receiver(s, to)
		}
		q.them, q.source = them.Identity, them.Source
	}
	v := q.ask(c.entries(p.Connect))
	switch {
	case v.action == syscalls.Deny && !me.Audit && !answers:
		return Answer{Error: v.errno}
	case v.action == syscalls.Pass, v.action == syscalls.Deny && !me.Audit, answers, them.Identity == 0:
		return a
	}
	theirs := c.policy(them)
	q.local, q.peer = q.peer, q.local
	q.localKnown, q.identity = true, them.Identity
	q.them, q.source = me.Identity, me.Source
	q.own = c.owns(theirs, to.Addr())
	if v := q.ask(c.entries(theirs.Accept)); v.action == syscalls.Deny && v.errno != unix.ETIMEDOUT && !them.Audit {
		return Answer{Error: v.errno}
	}
	return a
}

func addrOf(a syscalls.Address) netip.Addr {
	var b [16]byte
	for i, w := range a {
		b[4*i], b[4*i+1], b[4*i+2], b[4*i+3] = byte(w>>24), byte(w>>16), byte(w>>8), byte(w)
	}
	return netip.AddrFrom16(b).Unmap()
}
