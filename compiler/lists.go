package compiler

import (
	"net/netip"
	"slices"
	"sort"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// IP protocol numbers (IANA).
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// term is one way in which a packet can match: statements that all must hold.
type term []nft.Statement

// anything matches each packet.
var anything = []term{{}}

// resolver turns the names of a policy into matches for one device namespace.
type resolver struct {
	policy *model.Policy
	names  model.Names // of the policy
	device string
	ids    map[string]uint32
	facts  DeviceFacts
	deep   []int        // levels of members, deepest first
	always map[int]bool // those that are in use whatever exists
	passes Passes
	lists  *lists
	index  *Index            // nil until it is made
	named  map[uint32]string // ids the other way; nil until it is made
}

// addresses returns those that a peer stands for where it is not recognised by
// identity.
func (r *resolver) addresses(peer model.Peer, n *model.SocketNamespace) []model.AddressRange {
	if peer.Kind != model.PeerNamespace {
		return r.policy.PeerAddresses(peer, n)
	}
	if named := r.names.Namespace(peer.Name); named != nil {
		return named.Addresses
	}
	return nil
}

// side is an end of a packet.
type side bool

const (
	source      side = true
	destination side = false
)

// view is a place where a connect or accept list is asked, and what can be
// told there about the peer.
type view uint8

const (
	viewConnect view = iota // output, not through lo: the peer is an address
	viewLocal               // input from lo, connecting end: the receiver's identity is in the priority
	viewAccept              // input, accepting end: the sender's identity is in the priority
	viewSelf                // input from lo: both ends are in this namespace
)

// portTerms returns the matches for a rule's protocols and ports, where only
// packets of some transports get to; of any protocol if there are none.
func portTerms(protocols []model.Protocol, ports []model.PortRange, s side, within transports) []term {
	if within != (transports{}) {
		switch of := transportsOf(protocols).and(within); of {
		case transports{}:
			return nil
		case within:
			return numberTerms(0, ports, s)
		case tcpOnly:
			return numberTerms(protoTCP, ports, s)
		default:
			return numberTerms(protoUDP, ports, s)
		}
	}
	if len(protocols) == 0 {
		if len(ports) == 0 {
			return anything
		}
		protocols = model.Protocols[:]
	}
	var terms []term
	for _, p := range protocols {
		switch {
		case p.HasPorts():
			terms = append(terms, numberTerms(protocolNumber[p], ports, s)...)
		case len(ports) == 0:
			terms = append(terms, protocolTerm(protoICMP), protocolTerm(protoICMPv6))
		}
	}
	return terms
}

var protocolNumber = map[model.Protocol]uint8{
	model.TCP: protoTCP, model.UDP: protoUDP, model.SCTP: protoSCTP, model.UDPLite: protoUDPLite,
}

func protocolTerm(number uint8) term { return protocolTerms[number] }

// protocolTerms are made once: most rules have one.
var protocolTerms = func() map[uint8]term {
	terms := make(map[uint8]term)
	for _, number := range []uint8{protoICMP, protoTCP, protoUDP, protoICMPv6, protoSCTP, protoUDPLite} {
		terms[number] = term{nft.MatchMeta{Key: nft.MetaL4Proto, Value: uint32(number)}}
	}
	return terms
}()

func numberTerms(proto uint8, ports []model.PortRange, s side) []term {
	if len(ports) == 0 {
		if proto == 0 {
			return anything
		}
		return []term{protocolTerm(proto)}
	}
	var terms []term
	for _, r := range ports {
		terms = append(terms, term{nft.MatchPort{Protocol: proto, Source: bool(s), First: r.First, Last: r.Last}})
	}
	return terms
}

// mergePorts returns the same ports in the fewest ranges, sorted.
func mergePorts(ports []model.PortRange) []model.PortRange {
	if len(ports) < 2 {
		return ports
	}
	sorted := append([]model.PortRange(nil), ports...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].First < sorted[j].First })
	var merged []model.PortRange
	for _, r := range sorted {
		if n := len(merged); n > 0 && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// mergeAddresses returns the same addresses in the fewest ranges, sorted.
func mergeAddresses(ranges []model.AddressRange) []model.AddressRange {
	if len(ranges) < 2 {
		return ranges
	}
	sorted := append([]model.AddressRange(nil), ranges...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].First.Less(sorted[j].First) })
	var merged []model.AddressRange
	for _, r := range sorted {
		if n := len(merged); n > 0 {
			last := &merged[n-1]
			next := last.Last.Next()
			if last.Contains(r.First) || next.IsValid() && next == r.First && next.BitLen() == last.First.BitLen() {
				if last.Last.Less(r.Last) {
					last.Last = r.Last
				}
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

// addressTerms returns the matches for lists of addresses, each behind some others.
func (l *lowering) addressTerms(parts []part, s side, with ...nft.Statement) []term {
	sets, ranges := l.longLists(parts)
	if l.passes.has(PassMerge) {
		ranges = mergeAddresses(ranges)
	}
	var terms []term
	for _, set := range sets {
		terms = append(terms, append(slices.Clone(with), nft.MatchSet{Key: []nft.Field{addressField(set.Key[0], s)}, Set: set.Name}))
	}
	for _, r := range ranges {
		t := append(term(nil), with...)
		terms = append(terms, append(t, nft.MatchAddress{Source: bool(s), First: r.First, Last: r.Last}))
	}
	return terms
}

// addressField returns the field of a packet that has an address of a type.
func addressField(t nft.Type, s side) nft.Field {
	for _, f := range families {
		switch {
		case f.address == t && s == source:
			return nft.Field{Kind: f.source}
		case f.address == t:
			return nft.Field{Kind: f.dest}
		}
	}
	panic("no address is a " + t.String())
}

// peerTerms returns the matches for the other end as a rule names it.
func (l *lowering) peerTerms(n *model.SocketNamespace, rule *model.Rule, v view) []term {
	if len(rule.Peers) == 0 {
		return anything
	}
	peerSide := destination
	if rule.Hook == model.Accept {
		peerSide = source
	}
	var terms []term
	var plain, remote []part // for any sender; for senders that are elsewhere
	for _, peer := range rule.Peers {
		switch peer.Kind {
		case model.PeerAny:
			return anything
		case model.PeerSelf:
			if v == viewSelf {
				return anything
			}
		case model.PeerUnmanaged:
			if v == viewLocal || v == viewAccept {
				terms = append(terms, priorityTerm(unmanagedIdentity))
			}
		case model.PeerNamespace:
			switch v {
			case viewConnect:
				plain = append(plain, l.part(peer, n))
			case viewSelf:
				if peer.Name == n.Name {
					return anything
				}
			default:
				if t := l.identityTerm(peer.Name); t != nil {
					terms = append(terms, t)
				}
				if v == viewAccept {
					remote = append(remote, l.part(peer, n))
				}
			}
		default:
			plain = append(plain, l.part(peer, n))
		}
	}
	terms = append(terms, l.addressTerms(plain, peerSide)...)
	return append(terms, l.addressTerms(remote, peerSide, nft.MatchMeta{Key: nft.MetaPriority, Value: remoteIdentity})...)
}

func priorityTerm(id uint32) term {
	return term{nft.MatchMeta{Key: nft.MetaPriority, Value: id}}
}

// identityTerm matches the identity of a namespace of this device namespace;
// nil for one of another, whose sockets are never met through lo.
func (r *resolver) identityTerm(name string) term {
	n := r.names.Namespace(name)
	if n == nil || n.Device != r.device {
		return nil
	}
	if n.Each != "" {
		return term{nft.MatchMeta{Key: nft.MetaPriority, Mask: templateMask, Value: r.ids[name]}}
	}
	return priorityTerm(r.ids[name])
}

// localTerms returns the matches for a rule's local addresses. ownChecked says
// that the packet's local address is known to be one of the namespace's own.
func (l *lowering) localTerms(n *model.SocketNamespace, rule *model.Rule, s side, onLoopback, ownChecked bool) []term {
	if len(rule.Local) == 0 {
		if ownChecked {
			return anything
		}
		return l.ownTerms(n, s, onLoopback)
	}
	var ranges []part
	for _, local := range rule.Local {
		if local.Kind == model.PeerAny {
			return anything
		}
		ranges = append(ranges, l.part(local, n))
	}
	return l.addressTerms(ranges, s)
}

var loopbackRanges = []model.AddressRange{
	model.RangeOf(netip.MustParsePrefix("127.0.0.0/8")),
	model.RangeOf(netip.MustParsePrefix("::1/128")),
}

// The sets of pairs (a, a) for each local address a. A client that binds
// nothing and connects to a local address has that same address itself.
const (
	sameSet4 = "same4"
	sameSet6 = "same6"
)

// ownTerms matches the namespace's own local addresses: those it lists and
// loopback; for a connecting end on lo also the one that the kernel picks.
func (l *lowering) ownTerms(n *model.SocketNamespace, s side, onLoopback bool) []term {
	if len(n.Addresses) == 0 {
		return anything
	}
	terms := l.addressTerms([]part{{ranges: loopbackRanges}, {ranges: n.Addresses}}, s)
	if s == source && onLoopback {
		terms = append(terms,
			term{nft.MatchSet{Key: []nft.Field{{Kind: nft.FieldSource4}, {Kind: nft.FieldDest4}}, Set: sameSet4}},
			term{nft.MatchSet{Key: []nft.Field{{Kind: nft.FieldSource6}, {Kind: nft.FieldDest6}}, Set: sameSet6}})
	}
	return terms
}

// ephemeral returns the ports that the kernel picks.
func (r *resolver) ephemeral() []model.PortRange {
	return []model.PortRange{r.facts.Ephemeral()}
}
