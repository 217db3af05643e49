package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MaxComment is the most bytes that nft(8) takes as a comment
// (NFTNL_UDATA_COMMENT_MAXLEN in libnftnl/udata.h).
const MaxComment = 128

// Comment makes s a comment that nft(8) can print and read: double quotes,
// which its grammar has no way to escape, become single ones, control
// characters become spaces, and what is longer than [MaxComment] is cut at the
// end of a character and marked with three dots.
func Comment(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < ' ' || r == 0x7f:
			return ' '
		}
		return r
	}, s)
	if len(s) <= MaxComment {
		return s
	}
	const dots = "..."
	cut := 0
	for i := range s {
		if i > MaxComment-len(dots) {
			break
		}
		cut = i
	}
	return s[:cut] + dots
}

// checkComment says why s can't be the comment of an object.
func checkComment(s string) error {
	if len(s) > MaxComment {
		return fmt.Errorf("comment of %d bytes is longer than %d", len(s), MaxComment)
	}
	return checkQuoted(s)
}

// checkQuoted says why s can't stand between double quotes in nft(8) text.
func checkQuoted(s string) error {
	for i := range len(s) {
		if s[i] == '"' || s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("character %q can't be written in nft text", s[i])
		}
	}
	return nil
}

// String returns nft(8)'s name of the type.
func (t Type) String() string {
	if int(t) < len(typeInfos) {
		return typeInfos[t].name
	}
	return fmt.Sprintf("type%d", uint8(t))
}

// typeInfo is what nft(8) and the kernel know of a type: its name, its number
// (enum datatypes in nftables' include/datatype.h), its length and byte order.
type typeInfo struct {
	name string
	id   uint32
	size int
	host bool
}

var typeInfos = [...]typeInfo{
	TypeNone:        {name: "none"},
	TypeVerdict:     {name: "verdict", id: 1, size: 16},
	TypeCgroup:      {name: "cgroupsv2", id: 46, size: 8, host: true},
	TypeClassID:     {name: "classid", id: 23, size: 4, host: true},
	TypeMark:        {name: "mark", id: 19, size: 4, host: true},
	TypeIPv4:        {name: "ipv4_addr", id: 7, size: 4},
	TypeIPv6:        {name: "ipv6_addr", id: 8, size: 16},
	TypeInetProto:   {name: "inet_proto", id: 12, size: 1},
	TypeInetService: {name: "inet_service", id: 13, size: 2},
	TypeIfIndex:     {name: "iface_index", id: 20, size: 4, host: true},
}

// info returns what is known of a type, and false for one that can't be part of
// a key or be data.
func (t Type) info() (typeInfo, bool) {
	if t == TypeNone || int(t) >= len(typeInfos) {
		return typeInfo{}, false
	}
	return typeInfos[t], true
}

// typeByID is the inverse of typeInfo.id, TypeNone for a number not in use here.
func typeByID(id uint32) Type {
	for t, info := range typeInfos {
		if info.id == id && id != 0 {
			return Type(t)
		}
	}
	return TypeNone
}

// String returns the value as nft(8) text. A cgroup without a path, which that
// text can't name, is its id.
func (v Value) String() string {
	switch v.Type {
	case TypeCgroup:
		if v.Text == "" {
			return strconv.FormatUint(v.Num, 10)
		}
		return `"` + v.Text + `"`
	case TypeClassID:
		return classID(uint32(v.Num))
	case TypeMark:
		return markText(uint32(v.Num))
	case TypeIPv4, TypeIPv6:
		return v.Addr.String()
	case TypeInetProto:
		return protocolName(uint8(v.Num))
	}
	return strconv.FormatUint(v.Num, 10)
}

// Compare orders values of one type.
func (v Value) Compare(o Value) int {
	return cmp.Or(v.Addr.Compare(o.Addr), cmp.Compare(v.Num, o.Num))
}

// classID returns the text of a class id as nft(8) prints it: major:minor in hex.
func classID(id uint32) string {
	switch id {
	case 0:
		return "none"
	case 0xffffffff:
		return "root"
	}
	return fmt.Sprintf("%x:%x", id>>16, id&0xffff)
}

// markText returns the text of a mark as nft(8) prints it.
func markText(mark uint32) string { return fmt.Sprintf("0x%08x", mark) }

// protocolName returns the name that is a word of nft(8)'s grammar, so that the
// text does not depend on an /etc/protocols, else the number.
func protocolName(p uint8) string {
	switch p {
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	}
	return strconv.Itoa(int(p))
}

// addressRange returns the text of a range of addresses: one address, a
// prefix, or first-last.
func addressRange(first, last netip.Addr) string {
	if first == last {
		return first.String()
	}
	if bits, ok := rangePrefix(first, last); ok {
		return fmt.Sprintf("%s/%d", first, bits)
	}
	return first.String() + "-" + last.String()
}

// rangePrefix returns the length of the prefix that is exactly the range.
func rangePrefix(first, last netip.Addr) (bits int, ok bool) {
	a, b := first.AsSlice(), last.AsSlice()
	if len(a) != len(b) {
		return 0, false
	}
	for bits < len(a)*8 && bit(a, bits) == bit(b, bits) {
		bits++
	}
	for i := bits; i < len(a)*8; i++ {
		if bit(a, i) != 0 || bit(b, i) != 1 {
			return 0, false
		}
	}
	return bits, true
}

// bit returns bit i of b, the most significant of the first byte being 0.
func bit(b []byte, i int) byte { return b[i/8] >> (7 - i%8) & 1 }

// timeout returns the text of a time as nft(8) prints it: 1m30s500ms.
func timeout(d time.Duration) string {
	ms := d.Milliseconds()
	var b strings.Builder
	for _, u := range []struct {
		name string
		ms   int64
	}{{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}} {
		if n := ms / u.ms; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			ms %= u.ms
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}
