package nft

import (
	"fmt"
	"strconv"
	"strings"
)

func (MatchMeta) statement()      {}
func (MatchAddress) statement()   {}
func (MatchPort) statement()      {}
func (MatchICMP) statement()      {}
func (MatchTCPFlags) statement()  {}
func (MatchSCTPInit) statement()  {}
func (MatchSet) statement()       {}
func (VMap) statement()           {}
func (SetPriority) statement()    {}
func (SetPriorityMap) statement() {}
func (SetMark) statement()        {}
func (SetMarkMap) statement()     {}
func (SetMarkBits) statement()    {}
func (Update) statement()         {}
func (Counter) statement()        {}
func (Limit) statement()          {}
func (Log) statement()            {}
func (Verdict) statement()        {}
func (Reject) statement()         {}
func (Foreign) statement()        {}

// String returns the name of the key as it stands in nft(8) text.
func (k MetaKey) String() string {
	switch k {
	case MetaL4Proto:
		return "meta l4proto"
	case MetaNFProto:
		return "meta nfproto"
	case MetaIIF:
		return "iif"
	case MetaOIF:
		return "oif"
	case MetaPriority:
		return "meta priority"
	case MetaPktType:
		return "meta pkttype"
	case MetaMark:
		return "meta mark"
	}
	return fmt.Sprintf("meta %d", uint8(k))
}

// String returns the match as nft(8) text.
func (m MatchMeta) String() string {
	value := strconv.FormatUint(uint64(m.Value), 10)
	switch {
	case m.Key == MetaL4Proto && m.Value <= 255:
		value = protocolName(uint8(m.Value))
	case m.Key == MetaNFProto && m.Value == nfprotoIPv4:
		value = "ipv4"
	case m.Key == MetaNFProto && m.Value == nfprotoIPv6:
		value = "ipv6"
	case (m.Key == MetaIIF || m.Key == MetaOIF) && m.Value == Loopback:
		value = `"lo"`
	case m.Key == MetaPriority:
		value = classID(m.Value)
	case m.Key == MetaMark:
		value = markText(m.Value)
	}
	if m.Mask != 0 {
		op := " == "
		if m.Not {
			op = " != "
		}
		return m.Key.String() + masked(m.Mask, m.Key == MetaPriority) + op + value
	}
	return m.Key.String() + " " + not(m.Not) + value
}

// masked is the mask behind a priority or a mark.
func masked(mask uint32, priority bool) string {
	if priority {
		return " & " + classID(mask)
	}
	return " & " + markText(mask)
}

// not is the operator before the right side of a match.
func not(n bool) string {
	if n {
		return "!= "
	}
	return ""
}

// direction names the source or destination of a packet in nft(8)'s words.
func direction(source bool, what string) string {
	if source {
		return "s" + what
	}
	return "d" + what
}

// String returns the match as nft(8) text.
func (m MatchAddress) String() string {
	family := "ip6 "
	if m.First.Is4() {
		family = "ip "
	}
	return family + direction(m.Source, "addr") + " " + not(m.Not) + addressRange(m.First, m.Last)
}

// String returns the match as nft(8) text.
func (m MatchPort) String() string {
	protocol := "th"
	if m.Protocol != 0 {
		protocol = protocolName(m.Protocol)
	}
	return protocol + " " + direction(m.Source, "port") + " " + numberRange(uint64(m.First), uint64(m.Last))
}

// numberRange returns the text of an inclusive range of numbers.
func numberRange(first, last uint64) string {
	if first == last {
		return strconv.FormatUint(first, 10)
	}
	return strconv.FormatUint(first, 10) + "-" + strconv.FormatUint(last, 10)
}

// String returns the match as nft(8) text.
func (m MatchICMP) String() string {
	name := "icmp"
	if m.V6 {
		name = "icmpv6"
	}
	return name + " type " + numberRange(uint64(m.First), uint64(m.Last))
}

// tcpFlagNames are the flags of TCP from bit 0.
var tcpFlagNames = [8]string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"}

// tcpFlags returns the text of a set of flags.
func tcpFlags(flags uint8) string {
	if flags == 0 {
		return "0x0"
	}
	var names []string
	for i, name := range tcpFlagNames {
		if flags>>i&1 != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 1 {
		return names[0]
	}
	return "(" + strings.Join(names, "|") + ")"
}

// String returns the match as nft(8) text.
func (m MatchTCPFlags) String() string {
	op := "=="
	if m.Not {
		op = "!="
	}
	return "tcp flags & " + tcpFlags(m.Mask) + " " + op + " " + tcpFlags(m.Value)
}

// String returns the match as nft(8) text.
func (m MatchSCTPInit) String() string {
	if m.Present {
		return "sctp chunk init exists"
	}
	return "sctp chunk init missing"
}

// String returns the field as nft(8) text.
func (f Field) String() string {
	switch f.Kind {
	case FieldPriority, FieldMark:
		name := "meta mark"
		if f.Kind == FieldPriority {
			name = "meta priority"
		}
		if f.Mask != 0 {
			name += masked(f.Mask, f.Kind == FieldPriority)
		}
		return name
	case FieldCgroup:
		return fmt.Sprintf("socket cgroupv2 level %d", f.Level)
	case FieldL4Proto:
		return "meta l4proto"
	case FieldSource4:
		return "ip saddr"
	case FieldDest4:
		return "ip daddr"
	case FieldSource6:
		return "ip6 saddr"
	case FieldDest6:
		return "ip6 daddr"
	case FieldSport:
		return "th sport"
	case FieldDport:
		return "th dport"
	case FieldIIF:
		return "iif"
	}
	return fmt.Sprintf("field %d", uint8(f.Kind))
}

// Type returns the data type of the field.
func (f Field) Type() Type {
	switch f.Kind {
	case FieldPriority:
		return TypeClassID
	case FieldMark:
		return TypeMark
	case FieldCgroup:
		return TypeCgroup
	case FieldL4Proto:
		return TypeInetProto
	case FieldSource4, FieldDest4:
		return TypeIPv4
	case FieldSource6, FieldDest6:
		return TypeIPv6
	case FieldSport, FieldDport:
		return TypeInetService
	case FieldIIF:
		return TypeIfIndex
	}
	return TypeNone
}

// keyText returns the text of a key: its fields joined by dots.
func keyText(key []Field) string {
	fields := make([]string, len(key))
	for i, f := range key {
		fields[i] = f.String()
	}
	return strings.Join(fields, " . ")
}

// String returns the match as nft(8) text.
func (m MatchSet) String() string { return keyText(m.Key) + " " + not(m.Not) + "@" + m.Set }

// String returns the statement as nft(8) text.
func (v VMap) String() string { return keyText(v.Key) + " vmap @" + v.Map }

// String returns the statement as nft(8) text.
func (s SetPriority) String() string { return "meta priority set " + classID(s.Value) }

// String returns the statement as nft(8) text.
func (s SetPriorityMap) String() string {
	return "meta priority set " + keyText(s.Key) + " map @" + s.Map
}

// String returns the statement as nft(8) text.
func (s SetMark) String() string { return "meta mark set " + markText(s.Value) }

// String returns the statement as nft(8) text.
func (s SetMarkMap) String() string {
	return "meta mark set " + keyText(s.Key) + " map @" + s.Map
}

// String returns the statement as nft(8) text.
func (s SetMarkBits) String() string { return "meta mark set meta mark | " + markText(s.Bits) }

// String returns the statement as nft(8) text.
func (u Update) String() string {
	element := keyText(u.Key)
	if u.Limit.Rate != 0 {
		element += " " + u.Limit.String()
	}
	if u.Mark {
		element += " : meta mark"
	}
	return "update @" + u.Set + " { " + element + " }"
}

// String returns the statement as nft(8) text, with the figures if there are any.
func (c Counter) String() string {
	if c == (Counter{}) {
		return "counter"
	}
	return fmt.Sprintf("counter packets %d bytes %d", c.Packets, c.Bytes)
}

// defaultBurst is what the kernel makes of a burst of zero
// (NFT_LIMIT_PKT_BURST_DEFAULT in net/netfilter/nft_limit.c).
const defaultBurst = 5

// burst returns the burst in force.
func (l Limit) burst() uint32 {
	if l.Burst == 0 {
		return defaultBurst
	}
	return l.Burst
}

// String returns the statement as nft(8) text.
func (l Limit) String() string {
	return fmt.Sprintf("limit rate %d/second burst %d packets", l.Rate, l.burst())
}

// String returns the statement as nft(8) text.
func (l Log) String() string {
	group := fmt.Sprintf(" group %d", l.Group)
	if l.Prefix == "" {
		return "log" + group
	}
	return `log prefix "` + l.Prefix + `"` + group
}

// String returns the verdict as nft(8) text.
func (v Verdict) String() string {
	switch v.Kind {
	case VerdictNone:
		return "none"
	case VerdictAccept:
		return "accept"
	case VerdictDrop:
		return "drop"
	case VerdictReturn:
		return "return"
	case VerdictJump:
		return "jump " + v.Chain
	case VerdictGoto:
		return "goto " + v.Chain
	}
	return fmt.Sprintf("verdict %d", uint8(v.Kind))
}

// String returns the code as nft(8) text.
func (c ICMPX) String() string {
	switch c {
	case ICMPXNoRoute:
		return "no-route"
	case ICMPXPortUnreachable:
		return "port-unreachable"
	case ICMPXHostUnreachable:
		return "host-unreachable"
	case ICMPXAdminProhibited:
		return "admin-prohibited"
	}
	return strconv.Itoa(int(c))
}

// String returns the statement as nft(8) text.
func (r Reject) String() string {
	if r.TCPReset {
		return "reject with tcp reset"
	}
	return "reject with icmpx " + r.ICMPX.String()
}

// String names the expression. It is no nft(8) text: a rule with such a
// statement is printed as a comment.
func (f Foreign) String() string { return fmt.Sprintf("<%s, %d bytes>", f.Name, len(f.Raw)) }

// The values of meta nfproto (include/uapi/linux/netfilter.h).
const (
	nfprotoInet = 1
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10
)
