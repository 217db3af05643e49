package syscalls

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Program is a policy as the kernel's programs read it, for all device
// namespaces. It is a plain value; the compiler makes it.
type Program struct {
	Members  []Member
	Policies []Policy
	Entries  []Entry
	Ranges   []Range
	Locals   []Local
	Netns    []uint64 // cookies of the device namespaces that have socket namespaces
}

// Member is a cgroup of a socket namespace.
type Member struct {
	Cgroup   uint64 // id: the inode of its directory
	Netns    uint64 // cookie of the device namespace (SO_NETNS_COOKIE)
	Policy   uint32 // index in Program.Policies
	Identity uint32 // of the socket namespace or instance; never 0
	Source   uint32 // of the socket namespace or template; never 0
	Audit    bool   // nothing is refused or rewritten, but reported
}

// Span is a part of Program.Entries, or of Program.Ranges: a table, whose
// ranges are sorted and do not overlap.
type Span struct{ First, Count uint32 }

// Range is addresses from First to Last; of a table of ports or of sources,
// these are the last words.
type Range struct{ First, Last Address }

// NumberRange returns a range of ports or of sources.
func NumberRange(first, last uint32) Range {
	return Range{Address{3: first}, Address{3: last}}
}

// Append appends the range as the programs read it.
func (r *Range) Append(b []byte) []byte { return r.Last.append(r.First.append(b)) }

func (a *Address) append(b []byte) []byte {
	for _, word := range a {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	return b
}

// Contains reports whether an address is in the range.
func (r Range) Contains(a Address) bool {
	return slices.Compare(r.First[:], a[:]) <= 0 && slices.Compare(a[:], r.Last[:]) <= 0
}

// Policy is the lists of one or more socket namespaces.
type Policy struct {
	Own     Span // a table: the addresses that it lists
	Bind    Span // entries, as the next two
	Connect Span
	Accept  Span
	// Taken are tables of the ports that other namespaces may bind by rule.
	// Anywhere for TCP and for UDP, then on their own addresses for TCP and
	// for UDP.
	Taken   [4]Span
	Source4 Address // the first own address of the family, or zero
	Source6 Address
	Flags   PolicyFlags
}

// PolicyFlags say what addresses a policy lists.
type PolicyFlags uint32

// The flags of a policy.
const (
	OwnsAll     PolicyFlags = 1 << iota // lists none: all are its own
	OneAddress4                         // a wildcard of the family means Source4
	OneAddress6
	NoAddress4 // lists some, and none of the family
	NoAddress6
)

// Address is an IPv6 or IPv4-mapped address as four words, most significant
// first, each in host byte order.
type Address [4]uint32

// AddressOf converts an address; the zero Addr becomes the zero Address.
func AddressOf(a netip.Addr) Address {
	if !a.IsValid() {
		return Address{}
	}
	b := a.As16()
	return Address{
		binary.BigEndian.Uint32(b[0:]), binary.BigEndian.Uint32(b[4:]),
		binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]),
	}
}

// Kind says what an entry is.
type Kind uint8

// The kinds of entries. A list is a sequence of matches, each sequence ended
// by a verdict that holds if each dimension it needs has matched before, and
// what it says itself does too: a rule that names one of each is one entry.
const (
	Port Kind = 1 + iota
	LocalAddress
	PeerAddress
	PeerRemoteAddress // counts where the peer is not known by identity
	PeerSource
	PeerSelf
	PeerUnmanaged
	Verdict
	Default // the verdict that ends a list
)

// Need is a set of dimensions that a verdict needs.
type Need uint8

// The dimensions.
const (
	NeedPort Need = 1 << iota
	NeedLocal
	NeedPeer
)

// Here is a set of what a verdict matches itself, besides a peer.
type Here uint8

// The members.
const (
	HerePort Here = 1 << iota // the port is one of the verdict's
	HereOwn                   // the local address is the namespace's own
)

// Protocols is a set of transport protocols.
type Protocols uint8

// The protocols.
const (
	TCP Protocols = 1 << iota // MPTCP too
	UDP
	SCTP
	UDPLite
	ICMP         // ping sockets of both families
	AllProtocols = TCP | UDP | SCTP | UDPLite | ICMP
	WithPorts    = AllProtocols &^ ICMP
)

// Action is what a verdict does.
type Action uint8

// The actions. Pass leaves the decision to the packets' rules. Logs and Audit
// are added to one: what is allowed is reported; what would be refused is
// reported, and the entries behind decide.
const (
	Pass Action = iota
	Allow
	Deny
	Logs  Action = 0x10
	Audit Action = 0x20
)

// Entry is one step of a list. Its layout is that of struct entry in
// program/sockns.bpf.c.
type Entry struct {
	First, Last         Address
	PortFirst, PortLast uint16
	Source              uint32
	Table               Span   // if not empty, what matches in place of First to Last, Source, or the ports of a Port
	Tag                 uint32 // names the rule wherever it stands in the list; 0: the default
	Error               uint16 // errno; 0: the hook's default
	Rule                uint16 // from 1; 0: the default
	Kind                Kind
	Protocols           Protocols // that the entry is for
	Needs               Need      // what must have matched before
	Action              Action    // of a verdict, as the next two
	Here                Here
	Peer                Kind // of the peer that must match here too, or 0
	_                   [2]byte
}

// Append appends the entry as the programs read it.
func (e *Entry) Append(b []byte) []byte {
	n := binary.NativeEndian
	b = e.Last.append(e.First.append(b))
	b = n.AppendUint16(n.AppendUint16(b, e.PortFirst), e.PortLast)
	b = n.AppendUint32(b, e.Source)
	b = n.AppendUint32(n.AppendUint32(b, e.Table.First), e.Table.Count)
	b = n.AppendUint16(n.AppendUint16(n.AppendUint32(b, e.Tag), e.Error), e.Rule)
	return append(b, byte(e.Kind), byte(e.Protocols), byte(e.Needs), byte(e.Action), byte(e.Here), byte(e.Peer), 0, 0)
}

// Local is a local address of a device namespace, loopback aside.
type Local struct {
	Netns   uint64
	Address Address
	Owner   uint32 // identity of the first socket namespace that lists it; 0: none
}

// digestSize is what fits beside the slot in struct state.
const digestSize = 28
