package flowset

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sockns/sockns/model"
)

// The spaces of addresses. A rule that names a local address matches one that
// the kernel picked as it does one that was bound; a rule that names none
// matches all that the kernel picks.
const (
	spaceUnknown uint8 = iota // no address: the wildcard of a bind, or one that the kernel picks and nobody knows
	space4
	space6
	spacePicked4
	spacePicked6
)

var (
	unknown  = Set{{Point{Space: spaceUnknown}, Point{Space: spaceUnknown}}}
	bound    = Set{whole4(space4), whole(space6)}
	picked   = Set{whole4(spacePicked4), whole(spacePicked6)}
	allLocal = unknown.Union(bound).Union(picked)
	allPeers = unknown.Union(bound)
	loopback = addressSet([]model.AddressRange{
		model.RangeOf(netip.MustParsePrefix("127.0.0.0/8")), model.RangeOf(netip.MustParsePrefix("::1/128")),
	})
	wildcards = addressSet([]model.AddressRange{
		model.RangeOf(netip.MustParsePrefix("0.0.0.0/32")), model.RangeOf(netip.MustParsePrefix("::/128")),
	})
	allPorts     = Set{numbers(0, 1<<16-1)}
	port0        = Set{numbers(0, 0)}
	allProtocols = Set{numbers(0, len(model.Protocols)-1)}
	withPorts    = protocolSet(func(p model.Protocol) bool { return p.HasPorts() })
	identifying  = protocolSet(func(p model.Protocol) bool { return p == model.TCP || p == model.UDP })
)

// whole4 returns all IPv4 addresses, in one of their spaces.
func whole4(space uint8) Range {
	return Range{Point{Space: space}, Point{Space: space, Lo: 1<<32 - 1}}
}

func protocolSet(has func(model.Protocol) bool) Set {
	var list []Range
	for i, p := range model.Protocols {
		if has(p) {
			list = append(list, numbers(i, i))
		}
	}
	return setOf(list...)
}

// addressPoint returns the point of an address; that of the zero Addr is unknown.
func addressPoint(a netip.Addr) Point {
	switch a = a.Unmap(); {
	case !a.IsValid():
		return Point{Space: spaceUnknown}
	case a.Is4():
		b := a.As4()
		return Point{Space: space4, Lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return Point{space6, binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addressOf is the inverse of addressPoint, for picked addresses too.
func addressOf(p Point) netip.Addr {
	switch p.Space {
	case space4, spacePicked4:
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(p.Lo))
		return netip.AddrFrom4(b)
	case space6, spacePicked6:
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], p.Hi)
		binary.BigEndian.PutUint64(b[8:], p.Lo)
		return netip.AddrFrom16(b)
	}
	return netip.Addr{}
}

func addressSet(list []model.AddressRange) Set {
	ranges := make([]Range, len(list))
	for i, a := range list {
		ranges[i] = Range{addressPoint(a.First), addressPoint(a.Last)}
	}
	return setOf(ranges...)
}

// asPicked returns the same addresses as the kernel's choice.
func asPicked(s Set) Set {
	t := slices.Clone(s)
	for i := range t {
		t[i].First.Space += spacePicked4 - space4
		t[i].Last.Space += spacePicked4 - space4
	}
	return t
}

// world is a policy whose names are found without a walk.
type world struct {
	policy *model.Policy
	names  model.Names
	groups map[string]*model.Group
	shared map[subject]string // the addresses of namespaces that share some
}

func newWorld(p *model.Policy) *world {
	w := &world{policy: p, names: p.Names(), groups: make(map[string]*model.Group, len(p.Groups)), shared: make(map[subject]string)}
	for n := range p.Sharing() {
		w.shared[subject{n.Name, n.Device}] = fmt.Sprint(n.Addresses)
	}
	for i := range p.Groups {
		w.groups[p.Groups[i].Name] = &p.Groups[i]
	}
	return w
}

// resident returns the namespace of that name if the policy has it in the
// device namespace; else its sockets there are unmanaged.
func (w *world) resident(name, device string) *model.SocketNamespace {
	if n := w.names[name]; n != nil && n.Device == device {
		return n
	}
	return nil
}

// addresses are those that a peer stands for, as [model.Policy.PeerAddresses]
// has them.
func (w *world) addresses(peer model.Peer, n *model.SocketNamespace) []model.AddressRange {
	switch peer.Kind {
	case model.PeerGroup:
		if g := w.groups[peer.Name]; g != nil {
			return g.Addresses
		}
		return nil
	case model.PeerNamespace:
		if m := w.names[peer.Name]; m != nil {
			return m.Addresses
		}
		return nil
	}
	return w.policy.PeerAddresses(peer, n)
}

// own returns the addresses that a namespace has.
func own(n *model.SocketNamespace) Set {
	if len(n.Addresses) == 0 {
		return bound
	}
	return addressSet(n.Addresses).Union(loopback)
}
