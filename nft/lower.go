package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The numbers of expressions that golang.org/x/sys/unix lacks
// (include/uapi/linux/netfilter/nf_tables.h).
const (
	exthdrOpSCTP     = 3   // NFT_EXTHDR_OP_SCTP
	exthdrPresent    = 1   // NFT_EXTHDR_F_PRESENT
	sctpChunkInit    = 1   // RFC 9260
	socketCgroupv2   = 3   // NFT_SOCKET_CGROUPV2
	rejectTCPReset   = 1   // NFT_REJECT_TCP_RST
	rejectICMPX      = 2   // NFT_REJECT_ICMPX_UNREACH
	logPrefixMax     = 127 // NF_LOG_PREFIXLEN less its end
	nameMax          = 255 // NFT_NAME_MAXLEN less its end
	maxKeyWords      = 16  // NFT_DATA_VALUE_MAXLEN / 4: the registers there are
	sourceOffset4    = 12
	destOffset4      = 16
	sourceOffset6    = 8
	destOffset6      = 24
	tcpFlagsOffset   = 13
	sourcePortOffset = 0
	destPortOffset   = 2
)

// dependency is what a rule has established about a packet by a point: the
// family and transport whose headers may be read. nft(8) adds the match for
// what a statement depends on unless an earlier one stands for it; so does
// lowering, and raising takes it away again.
type dependency struct {
	nfproto uint8
	l4proto uint8
	// set apart from protocol 0, which is HOPOPT
	l4known bool
}

// after returns what is established behind a match of metadata.
func (d dependency) after(m MatchMeta) dependency {
	if m.Not || m.Value > 255 {
		return d
	}
	switch m.Key {
	case MetaNFProto:
		d.nfproto = uint8(m.Value)
	case MetaL4Proto:
		d.l4proto, d.l4known = uint8(m.Value), true
	}
	return d
}

// lowering turns statements into expressions.
type lowering struct {
	out []expr
	dep dependency
}

// lower appends the expressions of a rule as nft(8) 1.0.6 writes them.
func lower(out []expr, r *Rule) ([]expr, error) {
	l := lowering{out: out}
	for _, s := range r.Statements {
		if err := l.statement(s); err != nil {
			return l.out, fmt.Errorf("%s: %w", s, err)
		}
	}
	return l.out, nil
}

func (l *lowering) statement(s Statement) error {
	switch s := s.(type) {
	case MatchMeta:
		return l.matchMeta(s)
	case MatchAddress:
		return l.matchAddress(s)
	case MatchPort:
		return l.matchPort(s)
	case MatchICMP:
		return l.matchICMP(s)
	case MatchTCPFlags:
		l.l4proto(unix.IPPROTO_TCP)
		l.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, tcpFlagsOffset, 1)
		l.emit(expr{kind: exprBitwise, n: 1, mask: [16]byte{s.Mask}})
		l.cmp(equal(s.Not), s.Value)
	case MatchSCTPInit:
		present := uint8(0)
		if s.Present {
			present = 1
		}
		l.emit(expr{kind: exprSCTPInit})
		l.cmp(unix.NFT_CMP_EQ, present)
	case MatchSet:
		return l.lookup(s.Key, s.Set, expr{kind: exprLookup, op: bool8(s.Not)})
	case VMap:
		return l.lookup(s.Key, s.Map, expr{kind: exprVMap})
	case SetPriorityMap:
		if err := l.lookup(s.Key, s.Map, expr{kind: exprLookupMap}); err != nil {
			return err
		}
		l.emit(expr{kind: exprMetaStore, key: unix.NFT_META_PRIORITY})
	case SetPriority:
		e := expr{kind: exprImmediate, n: 4}
		binary.NativeEndian.PutUint32(e.data[:], s.Value)
		l.emit(e)
		l.emit(expr{kind: exprMetaStore, key: unix.NFT_META_PRIORITY})
	case SetMarkMap:
		if err := l.lookup(s.Key, s.Map, expr{kind: exprLookupMap}); err != nil {
			return err
		}
		l.emit(expr{kind: exprMetaStore, key: unix.NFT_META_MARK})
	case SetMark:
		e := expr{kind: exprImmediate, n: 4}
		binary.NativeEndian.PutUint32(e.data[:], s.Value)
		l.emit(e)
		l.emit(expr{kind: exprMetaStore, key: unix.NFT_META_MARK})
	case SetMarkBits:
		if s.Bits == 0 || s.Bits == 1<<32-1 {
			return errors.New("no bits, or all of them")
		}
		l.emit(expr{kind: exprMetaLoad, key: unix.NFT_META_MARK})
		l.masked(^s.Bits, s.Bits)
		l.emit(expr{kind: exprMetaStore, key: unix.NFT_META_MARK})
	case Update:
		e := expr{kind: exprUpdate}
		if s.Mark {
			e.dreg = dataRegister
		}
		if s.Limit.Rate != 0 {
			e.a, e.len = s.Limit.Rate, s.Limit.burst()
		}
		return l.lookup(s.Key, s.Set, e)
	case Counter:
		l.emit(expr{kind: exprCounter, a: s.Packets, b: s.Bytes})
	case Limit:
		if s.Rate == 0 {
			return errors.New("a rate of zero")
		}
		l.emit(expr{kind: exprLimit, a: s.Rate, key: s.burst()})
	case Log:
		if len(s.Prefix) > logPrefixMax {
			return fmt.Errorf("prefix is longer than %d bytes", logPrefixMax)
		}
		if err := checkQuoted(s.Prefix); err != nil {
			return err
		}
		l.emit(expr{kind: exprLog, name: s.Prefix, len: uint32(s.Group)})
	case Verdict:
		code, err := verdictCode(s)
		if err != nil {
			return err
		}
		l.emit(expr{kind: exprVerdict, off: uint32(code), name: s.Chain})
	case Reject:
		if s.TCPReset {
			l.l4proto(unix.IPPROTO_TCP)
			l.emit(expr{kind: exprReject, key: rejectTCPReset})
			return nil
		}
		if s.ICMPX > ICMPXAdminProhibited {
			return errors.New("no such code")
		}
		l.emit(expr{kind: exprReject, key: rejectICMPX, off: uint32(s.ICMPX)})
	case Foreign:
		l.emit(expr{kind: exprForeign, name: s.Name, raw: string(s.Raw)})
		l.dep = dependency{}
	default:
		return fmt.Errorf("statement of type %T", s)
	}
	return nil
}

func bool8(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// equal returns the operator of a comparison.
func equal(not bool) uint8 {
	if not {
		return unix.NFT_CMP_NEQ
	}
	return unix.NFT_CMP_EQ
}

func (l *lowering) emit(e expr) { l.out = append(l.out, e) }

func (l *lowering) cmp(op uint8, data ...byte) {
	e := expr{kind: exprCmp, op: op, n: uint8(len(data))}
	copy(e.data[:], data)
	l.emit(e)
}

func (l *lowering) payload(base, offset, length uint32) {
	l.emit(expr{kind: exprPayload, key: base, off: offset, len: length})
}

// nfproto emits the match of the family if it is not established.
func (l *lowering) nfproto(family uint8) {
	if l.dep.nfproto == family {
		return
	}
	l.emit(expr{kind: exprMetaLoad, key: unix.NFT_META_NFPROTO})
	l.cmp(unix.NFT_CMP_EQ, family)
	l.dep.nfproto = family
}

// l4proto emits the match of the transport if it is not established.
func (l *lowering) l4proto(protocol uint8) {
	if l.dep.l4known && l.dep.l4proto == protocol {
		return
	}
	l.emit(expr{kind: exprMetaLoad, key: unix.NFT_META_L4PROTO})
	l.cmp(unix.NFT_CMP_EQ, protocol)
	l.dep.l4proto, l.dep.l4known = protocol, true
}

// metaKeys are the kernel's numbers of the metadata, and their lengths.
var metaKeys = [...]struct {
	key  uint32
	size uint8
}{
	MetaL4Proto:  {unix.NFT_META_L4PROTO, 1},
	MetaNFProto:  {unix.NFT_META_NFPROTO, 1},
	MetaIIF:      {unix.NFT_META_IIF, 4},
	MetaOIF:      {unix.NFT_META_OIF, 4},
	MetaPriority: {unix.NFT_META_PRIORITY, 4},
	MetaPktType:  {unix.NFT_META_PKTTYPE, 1},
	MetaMark:     {unix.NFT_META_MARK, 4},
}

func (l *lowering) matchMeta(m MatchMeta) error {
	if int(m.Key) >= len(metaKeys) {
		return errors.New("no such key")
	}
	k := metaKeys[m.Key]
	if k.size == 1 && m.Value > 255 {
		return errors.New("value is out of range")
	}
	if m.Mask != 0 && (k.size != 4 || m.Key != MetaPriority && m.Key != MetaMark || m.Value&^m.Mask != 0) {
		return errors.New("mask does not fit")
	}
	l.emit(expr{kind: exprMetaLoad, key: k.key})
	l.masked(m.Mask, 0)
	if k.size == 1 {
		l.cmp(equal(m.Not), uint8(m.Value))
	} else {
		l.cmp(equal(m.Not), binary.NativeEndian.AppendUint32(nil, m.Value)...)
	}
	l.dep = l.dep.after(m)
	return nil
}

// masked leaves the bits of a mask, if there is one, of what was loaded.
func (l *lowering) masked(mask, add uint32) {
	if mask == 0 {
		return
	}
	e := expr{kind: exprBitwise, n: 4}
	binary.NativeEndian.PutUint32(e.mask[:], mask)
	binary.NativeEndian.PutUint32(e.data[:], add)
	l.emit(e)
}

func (l *lowering) matchAddress(m MatchAddress) error {
	if m.First.BitLen() == 0 || m.First.BitLen() != m.Last.BitLen() || m.First.Zone() != "" || m.Last.Zone() != "" {
		return errors.New("not a range of one family")
	}
	if m.Last.Less(m.First) {
		return errors.New("range ends before it begins")
	}
	size := m.First.BitLen() / 8
	family, offset := uint8(nfprotoIPv4), addressOffset(m.Source, m.First.Is4())
	if size == 16 {
		family = nfprotoIPv6
	}
	first, last := m.First.As16(), m.Last.As16()
	a, b := first[16-size:], last[16-size:]
	l.nfproto(family)
	bits, prefix := rangePrefix(m.First, m.Last)
	switch {
	case m.First == m.Last:
		l.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(size))
		l.cmp(equal(m.Not), a...)
	case prefix && bits > 0 && bits%8 == 0:
		l.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(bits/8))
		l.cmp(equal(m.Not), a[:bits/8]...)
	case prefix:
		l.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(size))
		e := expr{kind: exprBitwise, n: uint8(size)}
		for i := range bits {
			e.mask[i/8] |= 0x80 >> (i % 8)
		}
		l.emit(e)
		l.cmp(equal(m.Not), a...)
	default:
		l.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(size))
		l.ranged(m.Not, a, b)
	}
	return nil
}

// ranged emits the comparison of register 0 with an inclusive range.
func (l *lowering) ranged(not bool, first, last []byte) {
	if !not {
		l.cmp(unix.NFT_CMP_GTE, first...)
		l.cmp(unix.NFT_CMP_LTE, last...)
		return
	}
	e := expr{kind: exprRange, op: unix.NFT_RANGE_NEQ, n: uint8(len(first))}
	copy(e.data[:], first)
	copy(e.mask[:], last)
	l.emit(e)
}

// addressOffset returns where an address is in its header.
func addressOffset(source, v4 bool) uint32 {
	switch {
	case v4 && source:
		return sourceOffset4
	case v4:
		return destOffset4
	case source:
		return sourceOffset6
	}
	return destOffset6
}

func (l *lowering) matchPort(m MatchPort) error {
	if m.First > m.Last {
		return errors.New("range ends before it begins")
	}
	if m.Protocol != 0 {
		if !hasPorts(m.Protocol) {
			return errors.New("protocol has no ports")
		}
		l.l4proto(m.Protocol)
	}
	offset := uint32(destPortOffset)
	if m.Source {
		offset = sourcePortOffset
	}
	l.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2)
	first, last := binary.BigEndian.AppendUint16(nil, m.First), binary.BigEndian.AppendUint16(nil, m.Last)
	if m.First == m.Last {
		l.cmp(unix.NFT_CMP_EQ, first...)
	} else {
		l.ranged(false, first, last)
	}
	return nil
}

// hasPorts reports whether nft(8) has a word for the ports of a protocol.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE:
		return true
	}
	return false
}

func (l *lowering) matchICMP(m MatchICMP) error {
	if m.First > m.Last {
		return errors.New("range ends before it begins")
	}
	if m.V6 {
		l.nfproto(nfprotoIPv6)
		l.l4proto(unix.IPPROTO_ICMPV6)
	} else {
		l.nfproto(nfprotoIPv4)
		l.l4proto(unix.IPPROTO_ICMP)
	}
	l.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1)
	if m.First == m.Last {
		l.cmp(unix.NFT_CMP_EQ, m.First)
	} else {
		l.ranged(false, []byte{m.First}, []byte{m.Last})
	}
	return nil
}

// lookup emits the loads of a key and then e, which names the set.
func (l *lowering) lookup(key []Field, set string, e expr) error {
	if len(key) == 0 {
		return errors.New("no key")
	}
	if err := checkName(set); err != nil {
		return err
	}
	family := uint8(0)
	for _, f := range key {
		need := f.family()
		if need != 0 && family != 0 && need != family {
			return errors.New("addresses of two families in one key")
		}
		if need != 0 {
			family = need
		}
	}
	if family != 0 {
		l.nfproto(family)
	}
	reg := 0
	for _, f := range key {
		info, ok := f.Type().info()
		if !ok {
			return errors.New("no such field")
		}
		if reg+words(info.size) > maxKeyWords {
			return errors.New("key is too long")
		}
		load, err := f.load()
		if err != nil {
			return err
		}
		load.reg = uint8(reg)
		l.emit(load)
		if f.Mask != 0 {
			if len(key) > 1 || f.Kind != FieldPriority && f.Kind != FieldMark {
				return errors.New("a mask in such a key")
			}
			l.masked(f.Mask, 0)
		}
		reg += words(info.size)
	}
	if e.kind == exprUpdate && e.dreg != 0 {
		if reg > dataRegister {
			return errors.New("key is too long for one with data")
		}
		l.emit(expr{kind: exprMetaLoad, key: unix.NFT_META_MARK, reg: e.dreg})
	}
	e.name = set
	l.emit(e)
	return nil
}

// dataRegister is where nft(8) puts the data that goes with a key. It takes no
// key that is longer than the registers before it (an assertion of 1.0.6 fails).
const dataRegister = 4

// family returns the family that a field is of, or 0.
func (f Field) family() uint8 {
	switch f.Kind {
	case FieldSource4, FieldDest4:
		return nfprotoIPv4
	case FieldSource6, FieldDest6:
		return nfprotoIPv6
	}
	return 0
}

// load returns the expression that reads the field.
func (f Field) load() (expr, error) {
	switch f.Kind {
	case FieldPriority:
		return expr{kind: exprMetaLoad, key: unix.NFT_META_PRIORITY}, nil
	case FieldMark:
		return expr{kind: exprMetaLoad, key: unix.NFT_META_MARK}, nil
	case FieldCgroup:
		if f.Level == 0 {
			return expr{}, errors.New("levels count from 1")
		}
		return expr{kind: exprSocket, key: socketCgroupv2, off: uint32(f.Level)}, nil
	case FieldL4Proto:
		return expr{kind: exprMetaLoad, key: unix.NFT_META_L4PROTO}, nil
	case FieldSource4, FieldDest4:
		return expr{kind: exprPayload, key: unix.NFT_PAYLOAD_NETWORK_HEADER,
			off: addressOffset(f.Kind == FieldSource4, true), len: 4}, nil
	case FieldSource6, FieldDest6:
		return expr{kind: exprPayload, key: unix.NFT_PAYLOAD_NETWORK_HEADER,
			off: addressOffset(f.Kind == FieldSource6, false), len: 16}, nil
	case FieldSport:
		return expr{kind: exprPayload, key: unix.NFT_PAYLOAD_TRANSPORT_HEADER, off: sourcePortOffset, len: 2}, nil
	case FieldIIF:
		return expr{kind: exprMetaLoad, key: unix.NFT_META_IIF}, nil
	case FieldDport:
		return expr{kind: exprPayload, key: unix.NFT_PAYLOAD_TRANSPORT_HEADER, off: destPortOffset, len: 2}, nil
	}
	return expr{}, errors.New("no such field")
}

// checkName says why s can't name a set or chain.
func checkName(s string) error {
	if s == "" {
		return errors.New("no name")
	}
	if len(s) > nameMax {
		return fmt.Errorf("name is longer than %d bytes", nameMax)
	}
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if letter || i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '/' || c == '\\') {
			continue
		}
		return fmt.Errorf("name %q can't be written in nft text", s)
	}
	return nil
}

// The kernel's codes of verdicts (include/uapi/linux/netfilter.h, nf_tables.h).
const (
	codeDrop   int32 = 0
	codeAccept int32 = 1
	codeJump   int32 = -3
	codeGoto   int32 = -4
	codeReturn int32 = -5
)

// verdictCode returns the kernel's code of a verdict.
func verdictCode(v Verdict) (int32, error) {
	if (v.Kind == VerdictJump || v.Kind == VerdictGoto) != (v.Chain != "") {
		return 0, errors.New("a verdict has a chain if it is a jump or goto")
	}
	switch v.Kind {
	case VerdictAccept:
		return codeAccept, nil
	case VerdictDrop:
		return codeDrop, nil
	case VerdictReturn:
		return codeReturn, nil
	case VerdictJump:
		return codeJump, checkName(v.Chain)
	case VerdictGoto:
		return codeGoto, checkName(v.Chain)
	}
	return 0, errors.New("no such verdict")
}

// codeVerdict is the inverse of verdictCode, false for codes not in use here.
func codeVerdict(code int32, chain string) (Verdict, bool) {
	switch code {
	case codeAccept:
		return Verdict{Kind: VerdictAccept}, chain == ""
	case codeDrop:
		return Verdict{Kind: VerdictDrop}, chain == ""
	case codeReturn:
		return Verdict{Kind: VerdictReturn}, chain == ""
	case codeJump:
		return Verdict{Kind: VerdictJump, Chain: chain}, chain != ""
	case codeGoto:
		return Verdict{Kind: VerdictGoto, Chain: chain}, chain != ""
	}
	return Verdict{}, false
}
