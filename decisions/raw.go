package decisions

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nflog"
	"github.com/sockns/sockns/syscalls"
)

// raw is a decision as a tier tells it, in numbers.
type raw struct {
	time     time.Time
	device   string
	outcome  compiler.Outcome
	end      compiler.End // of packets
	hook     model.Hook
	rule     int
	name     string // of the namespace that decided; empty: identity
	identity uint32
	shared   bool // identity is of one that has the same rules
	peer     uint32
	hasPeer  bool
	errno    model.Errno
	protocol model.Protocol
	source   netip.AddrPort
	dest     netip.AddrPort
	process  *events.Actor
	uid      *uint32
	near     bool   // both ends are in the device namespace
	packet   string // its headers; empty: a call
	paired   bool   // the second packet told the other end
}

var protocolOfBit = map[syscalls.Protocols]model.Protocol{
	syscalls.TCP: model.TCP, syscalls.UDP: model.UDP, syscalls.SCTP: model.SCTP,
	syscalls.UDPLite: model.UDPLite, syscalls.ICMP: model.ICMP,
}

var protocolOfNumber = map[uint8]model.Protocol{
	unix.IPPROTO_TCP: model.TCP, unix.IPPROTO_UDP: model.UDP, unix.IPPROTO_SCTP: model.SCTP,
	unix.IPPROTO_UDPLITE: model.UDPLite, unix.IPPROTO_ICMP: model.ICMP, unix.IPPROTO_ICMPV6: model.ICMP,
}

var outcomeOfCall = [...]compiler.Outcome{
	syscalls.Refused: compiler.Refused, syscalls.Audited: compiler.Audited, syscalls.Logged: compiler.Allowed,
}

// fromCall reads the report of a call.
func fromCall(r *syscalls.Report, device string, process *events.Actor, now time.Time) (raw, bool) {
	if int(r.Hook) >= len(model.Hooks) || int(r.Outcome) >= len(outcomeOfCall) {
		return raw{}, false
	}
	c := raw{
		time: now, device: device, outcome: outcomeOfCall[r.Outcome], hook: model.Hooks[r.Hook], rule: int(r.Rule),
		identity: r.Identity, peer: r.Peer, hasPeer: r.Identified != 0, near: r.Identified != 0,
		protocol: protocolOfBit[r.Protocol], process: process,
	}
	if r.Error != 0 && c.outcome != compiler.Allowed {
		c.errno = model.Errno(unix.ErrnoName(unix.Errno(r.Error)))
	}
	local, remote := ofFamily(r.Local.Addr(), r.Family6 != 0), r.Remote.Addr()
	switch c.hook {
	case model.Bind:
		c.source = netip.AddrPortFrom(local, r.Port)
	case model.Connect:
		c.source, c.dest = netip.AddrPortFrom(local, r.SourcePort), netip.AddrPortFrom(remote, r.Port)
	case model.Accept:
		c.source, c.dest = netip.AddrPortFrom(ofFamily(remote, r.Family6 != 0), r.SourcePort), netip.AddrPortFrom(local, r.Port)
	}
	return c, true
}

// ofFamily gives the wildcard, which has no words that tell, its family.
func ofFamily(a netip.Addr, six bool) netip.Addr {
	if !six && a.Is6() && a.IsUnspecified() {
		return netip.IPv4Unspecified()
	}
	return a
}

// loopback is the index of lo in every network namespace.
const loopback = 1

// fromPacket reads a logged packet, without what a second one tells.
func fromPacket(p *nflog.Packet, device string, now time.Time) (raw, bool) {
	prefix, err := compiler.ParsePrefix(p.Prefix)
	h, ok := p.Headers()
	if err != nil || !ok {
		return raw{}, false
	}
	c := raw{
		time: now, device: device, outcome: prefix.Outcome, end: prefix.End, hook: prefix.Hook, rule: prefix.Rule,
		name: prefix.Namespace, errno: prefix.Errno, protocol: protocolOfNumber[h.Protocol],
		source: h.Source, dest: h.Dest, near: p.In == loopback, packet: string(p.Payload),
	}
	if c.hook == model.Bind && c.end == compiler.EndTo {
		c.source, c.dest = c.dest, c.source // the end that was bound
	}
	if p.HasUID {
		c.uid = &p.UID
	}
	if c.outcome == compiler.Refused {
		switch c.end {
		case compiler.EndOut, compiler.EndFrom:
			c.identity = p.Mark
		case compiler.EndOf:
			c.identity, c.shared = p.Mark, true
		case compiler.EndTo:
			c.peer, c.hasPeer = p.Mark, true
		}
	}
	return c, true
}

// needsPeer reports whether the second packet of a refusal is due.
func (c *raw) needsPeer() bool { return c.outcome == compiler.Refused && c.end != compiler.EndOut }

// setOther takes what the second packet tells: the receiver's identity.
func (c *raw) setOther(identity uint32) {
	c.paired = true
	if c.end == compiler.EndTo {
		c.identity = identity
	} else {
		c.peer, c.hasPeer = identity, true
	}
}

// rank orders the decisions about one packet in which applications would meet
// them: the connecting end's bind and connect, then the accepting end's.
func (c *raw) rank() int {
	rank := int(c.hook) // bind, connect, accept
	if c.end == compiler.EndTo {
		rank += len(model.Hooks)
	}
	return rank
}
