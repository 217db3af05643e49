// Package nft is the kernel's nftables (nft(8)) as plain values, and the wire
// that carries them.
//
// A [Table] is a value: it prints itself in the text that nft(8) accepts, is
// compared with another by [Diff], encoded and decoded. [Conn] is one netlink
// socket in one network namespace, meant to stay open. The package knows
// nothing of policies; it models what sockns needs of nftables and refuses to
// decode the rest (see [Foreign]).
package nft

import (
	"net/netip"
	"time"
)

// Table is a table of family inet.
type Table struct {
	Name    string
	Comment string
	Flags   TableFlags
	Sets    []Set
	Chains  []Chain
}

// TableFlags are the flags of a table (include/uapi/linux/netfilter/nf_tables.h).
type TableFlags uint32

// The flags that matter here. With TableOwner nobody but the socket that set
// it may write to the table; with TablePersist the table outlives that socket.
const (
	TableOwner   TableFlags = 0x2
	TablePersist TableFlags = 0x4
)

// Set is a set, or a map if Data is not TypeNone.
type Set struct {
	Name    string
	Comment string
	Key     []Type // more than one: a concatenation
	Data    Type
	// Dynamic sets are filled by packets (add, update); their elements are the
	// kernel's and never compared.
	Dynamic bool
	Timeout time.Duration // of elements; zero: none
	Size    uint32        // most elements; zero: no bound
	// Interval is set if elements are intervals that have nothing in common: the
	// Key of each has two values, its first and its last. Such a set has one
	// field, an address or a port, and is no map.
	Interval bool
	// Linger has [Diff] delete elements after the switch and not in it: for keys
	// that packets on their way may still carry. The kernel does not know it.
	Linger bool
	// CatchAll is not modelled.
	Elements []Element
	// Notes are printed as comments in the text form, and nowhere else.
	Notes []string
	// Foreign is set by decoding if the set has properties or elements that are
	// not modelled here; such a set equals no other.
	Foreign bool
}

// IsMap reports whether the set maps its keys to something.
func (s *Set) IsMap() bool { return s.Data != TypeNone }

// Element is an entry of a set or map.
type Element struct {
	Key     []Value // in a set of intervals: the first and the last value
	Data    Value   // maps whose Data is neither TypeNone nor TypeVerdict
	Verdict Verdict // maps whose Data is TypeVerdict
	Comment string
}

// Type is a data type of nft(8).
type Type uint8

// The data types in use, with the kernel's length and nft's name for each.
const (
	TypeNone        Type = iota
	TypeVerdict          // verdict
	TypeCgroup           // cgroupsv2, 8 bytes, host byte order: the cgroup's id
	TypeClassID          // classid, 4 bytes, host byte order: skb->priority
	TypeMark             // mark, 4 bytes, host byte order: skb->mark
	TypeIPv4             // ipv4_addr
	TypeIPv6             // ipv6_addr
	TypeInetProto        // inet_proto
	TypeInetService      // inet_service, big endian
	TypeIfIndex          // iface_index, 4 bytes, host byte order
)

// Value is one field of a key or of a map's data.
type Value struct {
	Type Type
	Num  uint64     // TypeCgroup, TypeClassID, TypeMark, TypeInetProto, TypeInetService, TypeIfIndex
	Addr netip.Addr // TypeIPv4, TypeIPv6
	// Text is the path of a cgroup below the cgroup2 mount, without the leading
	// slash, for the text form: the kernel knows ids only. Not compared.
	Text string
}

// Chain is a chain; a base chain if Base is set.
type Chain struct {
	Name    string
	Comment string
	Base    *Base
	Rules   []Rule
}

// Base hooks a chain of type filter with policy accept into the stack.
type Base struct {
	Hook     Hook
	Priority int32 // NF_IP_PRI_FILTER is 0
	// Foreign is set by decoding if the chain is of another type, has another
	// policy or is bound to a device; such a chain equals no other.
	Foreign bool
}

// Hook is a netfilter hook of family inet (include/uapi/linux/netfilter.h).
type Hook uint32

// The hooks in use.
const (
	HookInput  Hook = 1
	HookOutput Hook = 3
)

// Rule is a list of statements, evaluated from the left until one does not match.
type Rule struct {
	Statements []Statement
	Comment    string
}

// Statement is a match or an action of a rule: one of the types of this
// package that embed no other. It is a closed set.
type Statement interface {
	// String returns the statement as nft(8) text.
	String() string
	statement()
}

// MetaKey names a field of a packet's metadata.
type MetaKey uint8

// The metadata in use.
const (
	MetaL4Proto  MetaKey = iota // transport protocol number
	MetaNFProto                 // 2 IPv4, 10 IPv6
	MetaIIF                     // index of the input interface; 1 is lo in every network namespace
	MetaOIF                     // index of the output interface
	MetaPriority                // skb->priority
	MetaPktType                 // 5: a multicast or broadcast packet looped back to its sender's machine
	MetaMark                    // skb->mark
)

// Loopback is the interface index of lo, the first of every network namespace.
const Loopback = 1

type (
	// MatchMeta compares a field of the metadata: meta l4proto tcp. With a Mask,
	// which goes with MetaPriority and MetaMark, these bits of it.
	MatchMeta struct {
		Key   MetaKey
		Not   bool
		Mask  uint32 // 0: all bits
		Value uint32
	}
	// MatchAddress matches the source or destination address against an
	// inclusive range of one family (and so matches the family too): ip saddr 10.0.0.0/8.
	MatchAddress struct {
		Source      bool
		Not         bool // of the family, but outside the range
		First, Last netip.Addr
	}
	// MatchPort matches the source or destination port against an inclusive
	// range. With Protocol set it matches the transport too (tcp dport 80),
	// else it reads the same bytes of any (th dport 80).
	MatchPort struct {
		Protocol    uint8 // IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_UDPLITE, or 0
		Source      bool
		First, Last uint16
	}
	// MatchICMP matches the message type against an inclusive range: icmp type 3-5.
	MatchICMP struct {
		V6          bool
		First, Last uint8
	}
	// MatchTCPFlags compares the masked flags: tcp flags & (fin|syn|rst|ack) != syn.
	MatchTCPFlags struct {
		Mask, Value uint8
		Not         bool
	}
	// MatchSCTPInit matches SCTP packets with (or without) an INIT chunk.
	MatchSCTPInit struct {
		Present bool
	}
	// MatchSet looks a key up in a set.
	MatchSet struct {
		Key []Field
		Not bool
		Set string
	}
	// VMap looks a key up in a map of verdicts and takes the verdict found.
	VMap struct {
		Key []Field
		Map string
	}
	// SetPriority writes skb->priority: meta priority set.
	SetPriority struct {
		Value uint32
	}
	// SetPriorityMap writes what the map has for the key to skb->priority; a
	// key that the map does not hold ends the rule.
	SetPriorityMap struct {
		Key []Field
		Map string
	}
	// SetMark writes skb->mark: meta mark set.
	SetMark struct {
		Value uint32
	}
	// SetMarkMap writes what the map has for the key to skb->mark; a key that
	// the map does not hold ends the rule.
	SetMarkMap struct {
		Key []Field
		Map string
	}
	// SetMarkBits sets bits of skb->mark and leaves the others.
	SetMarkBits struct {
		Bits uint32
	}
	// Update adds the key to a dynamic set, or renews its timeout. In a map of
	// marks, which Mark says it is, the packet's own is the data of the key, of at
	// most 16 bytes, from then on. A Limit whose Rate is not zero is each element's own, and ends the rule
	// for packets beyond it. A full set ends the rule for new keys.
	Update struct {
		Key   []Field
		Set   string
		Mark  bool
		Limit Limit
	}
	// Counter counts packets and bytes. The figures are the kernel's and never compared.
	Counter struct {
		Packets, Bytes uint64
	}
	// Limit ends the rule for packets beyond Rate a second.
	Limit struct {
		Rate  uint64
		Burst uint32
	}
	// Log hands the packet to who listens to a group of nfnetlink_log.
	Log struct {
		Prefix string // at most 127 bytes
		Group  uint16
	}
	// Verdict ends the rule.
	Verdict struct {
		Kind  VerdictKind
		Chain string // Jump, Goto
	}
	// Reject ends the rule: the packet is dropped and its sender told.
	Reject struct {
		TCPReset bool
		ICMPX    ICMPX // where TCPReset is not set
	}
)

// VerdictKind is a verdict of nft(8).
type VerdictKind uint8

// The verdicts. VerdictNone is the absence of one.
const (
	VerdictNone VerdictKind = iota
	VerdictAccept
	VerdictDrop
	VerdictReturn
	VerdictJump
	VerdictGoto
)

// ICMPX is a code of reject with icmpx (enum nft_reject_inet_code).
type ICMPX uint8

// The codes of reject with icmpx.
const (
	ICMPXNoRoute ICMPX = iota
	ICMPXPortUnreachable
	ICMPXHostUnreachable
	ICMPXAdminProhibited
)

// Field is one field of a packet or its socket as part of a key.
type Field struct {
	Kind  FieldKind
	Level uint8 // FieldCgroup: depth of the ancestor, from 1
	// Mask are the bits that count of FieldPriority and FieldMark where they are
	// all of the key; 0: all bits.
	Mask uint32
}

// FieldKind says which field. IPv4 and IPv6 addresses match the family too.
type FieldKind uint8

// The fields in use.
const (
	FieldPriority FieldKind = iota // meta priority
	FieldMark                      // meta mark
	FieldCgroup                    // socket cgroupv2 level N; ends the rule if there is no socket or it is shallower
	FieldL4Proto                   // meta l4proto
	FieldSource4                   // ip saddr
	FieldDest4                     // ip daddr
	FieldSource6                   // ip6 saddr
	FieldDest6                     // ip6 daddr
	FieldSport                     // th sport
	FieldDport                     // th dport
	FieldIIF                       // iif
)

// Foreign is a rule's statement that this package does not write. Decoding
// keeps it, so that a foreign rule is seen as a difference and not overlooked.
type Foreign struct {
	Name string // of the expression, as "ct"
	Raw  []byte
}
