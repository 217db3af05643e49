package simulate

import (
	"net/netip"

	"github.com/sockns/sockns/syscalls"
)

// listener is a TCP socket that is steered.
type listener struct {
	netns    uint64
	cgroups  []uint64
	asked    netip.AddrPort // by its bind
	identity uint32
	handle   int
}

// claim is a loopback address that a namespace asked for first. Here it does
// not end.
type claim struct {
	netns uint64
	addr  netip.AddrPort
}

// Listen notes that a socket begins to listen; asked is what its bind asked
// for, and handle is what [Calls.Steer] returns.
func (c *Calls) Listen(s Socket, asked netip.AddrPort, handle int) {
	me, managed := c.member(s.Netns, s.Cgroups)
	if managed && !me.Audit && s.Protocol == syscalls.TCP {
		c.listeners = append(c.listeners, listener{s.Netns, s.Cgroups, asked, me.Identity, handle})
	}
}

// conflicts reports whether a listener of the same namespace has what a bind
// asks for, unseen by the kernel.
func (c *Calls) conflicts(s Socket, me syscalls.Member, to netip.AddrPort) bool {
	for _, l := range c.listeners {
		a, b := l.asked.Addr(), to.Addr()
		if l.netns == s.Netns && l.identity == me.Identity && l.asked.Port() == to.Port() &&
			(a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())) {
			return true
		}
	}
	return false
}

// shares reports whether a bind to a loopback address is one beside another
// namespace's. A listener that is not steered does not share.
func (c *Calls) shares(s Socket, me syscalls.Member, to netip.AddrPort) bool {
	holder, found := c.receiver(s, to)
	if !found {
		return c.claimedByOther(s, me, to)
	}
	return holder.Identity != me.Identity && c.isSteered(s.Netns, holder.Identity, to)
}

// isSteered reports whether a namespace has a steered listener for an address.
func (c *Calls) isSteered(netns uint64, identity uint32, to netip.AddrPort) bool {
	for _, l := range c.listeners {
		if l.netns == netns && l.identity == identity && l.asked.Port() == to.Port() &&
			(l.asked.Addr() == to.Addr() || l.asked.Addr().IsUnspecified() && l.asked.Addr().Is4() == to.Addr().Is4()) {
			return true
		}
	}
	return false
}

// claimedByOther reports whether another namespace asked for a loopback address
// before, and claims it otherwise.
func (c *Calls) claimedByOther(s Socket, me syscalls.Member, to netip.AddrPort) bool {
	k := claim{s.Netns, to}
	if _, ok := c.claims[k]; !ok {
		c.claims[k] = me.Identity
	}
	return c.claims[k] != me.Identity
}

// Steer returns the listener that gets a connection, of those that are
// steered. With near the client is in the same network namespace, and
// cgroups are its own; else nobody knows who it is.
func (c *Calls) Steer(netns uint64, near bool, cgroups []uint64, from, to netip.AddrPort) (handle int, found bool) {
	var client syscalls.Member
	if near {
		client, _ = c.member(netns, cgroups)
	}
	l := c.steer(netns, near, client, from.Addr(), to)
	if l == nil {
		return 0, false
	}
	return l.handle, true
}

// What a listener's namespace says to a connection.
type word uint8

const (
	nobody word = iota // it is not for an address of its own
	refuses
	accepts
)

func (c *Calls) steer(netns uint64, near bool, client syscalls.Member, from netip.Addr, to netip.AddrPort) *listener {
	wildcard := netip.IPv6Unspecified()
	if to.Addr().Is4() {
		wildcard = netip.IPv4Unspecified()
	}
	ask := func(l *listener) (word, syscalls.Member) {
		m, managed := c.member(netns, l.cgroups)
		if !managed || m.Audit {
			return accepts, m
		}
		p := c.policy(m)
		if !c.owns(p, to.Addr()) {
			return nobody, m
		}
		q := question{
			ranges: c.program.Ranges, identity: m.Identity, them: client.Identity, source: client.Source, protocol: syscalls.TCP, port: to.Port(),
			local: syscalls.AddressOf(to.Addr()), localKnown: true, own: true, peer: syscalls.AddressOf(from), identified: near,
		}
		if q.ask(c.entries(p.Accept)).action == syscalls.Deny {
			return refuses, m
		}
		return accepts, m
	}
	of := func(identity uint32) (*listener, word) {
		for _, asked := range []netip.Addr{to.Addr(), wildcard} {
			for i := range c.listeners {
				l := &c.listeners[i]
				if identity == 0 || l.netns != netns || l.identity != identity || l.asked != netip.AddrPortFrom(asked, to.Port()) {
					continue
				}
				if word, _ := ask(l); word != nobody {
					return l, word
				}
			}
		}
		return nil, nobody
	}
	var owner uint32
	first := client.Identity
	if !to.Addr().IsLoopback() {
		owner = c.locals[syscalls.Local{Netns: netns, Address: syscalls.AddressOf(to.Addr())}]
		first = owner
	}
	if l, word := of(first); word == accepts {
		return l
	}
	if near && to.Addr().IsLoopback() {
		// One that the kernel has there keeps its clients.
		holder, found := c.receiver(Socket{Netns: netns, Protocol: syscalls.TCP}, to)
		if found && !c.isSteered(netns, holder.Identity, to) {
			return nil
		}
	}
	var best *listener
	rank := ^uint32(0)
	for i := range c.listeners {
		l := &c.listeners[i]
		if l.netns != netns || l.asked.Port() != to.Port() || l.asked.Addr() != to.Addr() && l.asked.Addr() != wildcard {
			continue
		}
		word, m := ask(l)
		its := 2 * m.Source
		if l.asked.Addr() == wildcard {
			its++
		}
		if word == accepts && its < rank {
			best, rank = l, its
		}
	}
	if best == nil {
		best, _ = of(owner)
	}
	return best
}
