package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// raise turns the expressions of a rule into statements, taking away the matches
// that lowering adds. What it can't read as lowering writes it becomes
// [Foreign], so that the statements' own expressions are always those given.
func raise(exprs []expr) []Statement {
	r := raising{in: exprs}
	for len(r.in) > 0 {
		r.statement()
	}
	return r.out
}

// raising turns expressions into statements.
type raising struct {
	in  []expr
	out []Statement
	dep dependency
	// before is what was established before the last statements of out, as long
	// as they may turn out to be matches that lowering added.
	before []dependency
}

// push appends a statement that was read from n expressions.
func (r *raising) push(s Statement, n int) {
	r.before = append(r.before, r.dep)
	r.out = append(r.out, s)
	r.in = r.in[n:]
}

// foreign makes the next expression a foreign statement.
func (r *raising) foreign() {
	e := &r.in[0]
	name, raw := e.name, e.raw
	if e.kind != exprForeign {
		var w wire
		w.expressionData(e)
		name, raw = e.wireName(), string(w.b)
	}
	r.push(Foreign{Name: name, Raw: []byte(raw)}, 1)
	r.dep = dependency{}
}

// need makes sure that the packet's family and transport are established for
// the next statement, and takes the matches away that are there for it alone.
// A zero asks for nothing.
func (r *raising) need(nfproto, l4proto uint8) bool {
	if nfproto != 0 && r.dep.nfproto != nfproto || l4proto != 0 && (!r.dep.l4known || r.dep.l4proto != l4proto) {
		return false
	}
	if l4proto != 0 {
		r.pop(MatchMeta{Key: MetaL4Proto, Value: uint32(l4proto)})
	}
	if nfproto != 0 {
		r.pop(MatchMeta{Key: MetaNFProto, Value: uint32(nfproto)})
	}
	return true
}

// pop takes the last statement away if it is the match and establishes something.
func (r *raising) pop(m MatchMeta) {
	last := len(r.out) - 1
	if last < 0 || r.out[last] != Statement(m) || r.before[last].after(m) == r.before[last] {
		return
	}
	r.out, r.before = r.out[:last], r.before[:last]
}

// at returns expression i from here, an impossible one beyond the end.
func (r *raising) at(i int) *expr {
	if i < len(r.in) {
		return &r.in[i]
	}
	return &expr{kind: 0xff}
}

// statement reads the next statement.
func (r *raising) statement() {
	e := r.at(0)
	switch e.kind {
	case exprMetaLoad, exprPayload, exprSocket:
		if r.load() {
			return
		}
	case exprSCTPInit:
		if c := r.at(1); e.reg == 0 && c.kind == exprCmp && c.reg == 0 && c.op == unix.NFT_CMP_EQ && c.n == 1 && c.data[0] <= 1 {
			r.push(MatchSCTPInit{Present: c.data[0] == 1}, 2)
			return
		}
	case exprImmediate:
		s := r.at(1)
		if e.reg != 0 || e.n != 4 || s.kind != exprMetaStore || s.reg != 0 {
			break
		}
		switch value := binary.NativeEndian.Uint32(e.data[:]); s.key {
		case unix.NFT_META_PRIORITY:
			r.push(SetPriority{Value: value}, 2)
			return
		case unix.NFT_META_MARK:
			r.push(SetMark{Value: value}, 2)
			return
		}
	case exprVerdict:
		if v, ok := codeVerdict(int32(e.off), e.name); ok {
			r.push(v, 1)
			return
		}
	case exprCounter:
		r.push(Counter{Packets: e.a, Bytes: e.b}, 1)
		return
	case exprLimit:
		r.push(Limit{Rate: e.a, Burst: e.key}, 1)
		return
	case exprLog:
		r.push(Log{Prefix: e.name, Group: uint16(e.len)}, 1)
		return
	case exprReject:
		if e.key == rejectICMPX && e.off <= uint32(ICMPXAdminProhibited) {
			r.push(Reject{ICMPX: ICMPX(e.off)}, 1)
			return
		}
		if e.key == rejectTCPReset && r.need(0, unix.IPPROTO_TCP) {
			r.push(Reject{TCPReset: true}, 1)
			return
		}
	}
	r.foreign()
}

// load reads a statement that begins with the load of a register.
func (r *raising) load() bool {
	if r.at(0).reg != 0 {
		return false
	}
	if r.keyed() {
		return true
	}
	switch e := r.at(0); {
	case e.kind == exprMetaLoad:
		return r.meta(e)
	case e.kind == exprPayload && e.key == unix.NFT_PAYLOAD_NETWORK_HEADER:
		return r.address(e)
	case e.kind == exprPayload && e.key == unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return r.transport(e)
	}
	return false
}

// field returns the field that an expression loads.
func (e *expr) field() (Field, bool) {
	switch {
	case e.kind == exprMetaLoad && e.key == unix.NFT_META_PRIORITY:
		return Field{Kind: FieldPriority}, true
	case e.kind == exprMetaLoad && e.key == unix.NFT_META_MARK:
		return Field{Kind: FieldMark}, true
	case e.kind == exprMetaLoad && e.key == unix.NFT_META_IIF:
		return Field{Kind: FieldIIF}, true
	case e.kind == exprMetaLoad && e.key == unix.NFT_META_L4PROTO:
		return Field{Kind: FieldL4Proto}, true
	case e.kind == exprSocket && e.key == socketCgroupv2 && e.off > 0 && e.off <= 255:
		return Field{Kind: FieldCgroup, Level: uint8(e.off)}, true
	case e.kind == exprPayload:
		kind, ok := payloadFields[[3]uint32{e.key, e.off, e.len}]
		return Field{Kind: kind}, ok
	}
	return Field{}, false
}

// payloadFields are the fields in the headers, by base, offset and length.
var payloadFields = func() map[[3]uint32]FieldKind {
	fields := make(map[[3]uint32]FieldKind)
	for _, kind := range []FieldKind{FieldSource4, FieldDest4, FieldSource6, FieldDest6, FieldSport, FieldDport} {
		load, _ := Field{Kind: kind}.load()
		fields[[3]uint32{load.key, load.off, load.len}] = kind
	}
	return fields
}()

// keyed reads a statement that loads a key and looks it up.
func (r *raising) keyed() bool {
	var key []Field
	reg, family := 0, uint8(0)
	n := 0
	for ; ; n++ {
		f, ok := r.at(n).field()
		if !ok || int(r.at(n).reg) != reg {
			break
		}
		if need := f.family(); need != 0 {
			if family != 0 && need != family {
				return false
			}
			family = need
		}
		info, _ := f.Type().info()
		reg += words(info.size)
		key = append(key, f)
	}
	if mask, add, ok := r.at(n).bits(); ok && n == 1 && add == 0 && key[0].Type().maskable() {
		key[0].Mask = mask
		n++
	}
	e := r.at(n)
	data := e.kind == exprMetaLoad && e.key == unix.NFT_META_MARK
	if data { // of an update, where its register is not the next
		n++
		e = r.at(n)
		data = e.kind == exprUpdate && e.dreg != 0 && e.dreg == r.at(n-1).reg
		if !data {
			return false
		}
	} else if e.kind == exprUpdate && e.dreg != 0 { // it looked like the last field
		last := len(key) - 1
		if last < 1 || key[last] != (Field{Kind: FieldMark}) || r.at(n-1).reg != e.dreg {
			return false
		}
		key, data = key[:last], true
	}
	if len(key) == 0 || e.reg != 0 || data != (e.dreg != 0) || data && e.dreg != dataRegister {
		return false
	}
	var s Statement
	used := n + 1
	switch e.kind {
	case exprLookup:
		s = MatchSet{Key: key, Not: e.op != 0, Set: e.name}
	case exprVMap:
		s = VMap{Key: key, Map: e.name}
	case exprUpdate:
		s = Update{Key: key, Set: e.name, Mark: data, Limit: Limit{Rate: e.a, Burst: e.len}}
	case exprLookupMap:
		m := r.at(n + 1)
		switch {
		case m.kind != exprMetaStore || m.reg != 0:
			return false
		case m.key == unix.NFT_META_PRIORITY:
			s = SetPriorityMap{Key: key, Map: e.name}
		case m.key == unix.NFT_META_MARK:
			s = SetMarkMap{Key: key, Map: e.name}
		default:
			return false
		}
		used++
	default:
		return false
	}
	if !r.need(family, 0) {
		return false
	}
	r.push(s, used)
	return true
}

// bits returns what an expression does to the bits of a register: which ones it
// leaves, and which it sets.
func (e *expr) bits() (mask, add uint32, ok bool) {
	if e.kind != exprBitwise || e.reg != 0 || e.n != 4 {
		return 0, 0, false
	}
	mask, add = binary.NativeEndian.Uint32(e.mask[:]), binary.NativeEndian.Uint32(e.data[:])
	return mask, add, mask != 0 && mask&add == 0
}

// maskable reports whether a field of the type may have a mask.
func (t Type) maskable() bool { return t == TypeClassID || t == TypeMark }

// meta reads the comparison of metadata with a value, or the change of a mark.
func (r *raising) meta(e *expr) bool {
	c := r.at(1)
	if mask, add, ok := c.bits(); ok {
		return r.masked(e, mask, add)
	}
	if c.kind != exprCmp || c.reg != 0 || c.op > unix.NFT_CMP_NEQ {
		return false
	}
	for key, k := range metaKeys {
		if k.key != e.key || k.size != c.n {
			continue
		}
		m := MatchMeta{Key: MetaKey(key), Not: c.op == unix.NFT_CMP_NEQ, Value: uint32(c.data[0])}
		if k.size == 4 {
			m.Value = binary.NativeEndian.Uint32(c.data[:])
		}
		r.push(m, 2)
		r.dep = r.dep.after(m)
		return true
	}
	return false
}

// masked reads what is done to bits of a priority or a mark.
func (r *raising) masked(e *expr, mask, add uint32) bool {
	c := r.at(2)
	if c.reg != 0 || e.key != unix.NFT_META_MARK && e.key != unix.NFT_META_PRIORITY {
		return false
	}
	if c.kind == exprMetaStore && c.key == unix.NFT_META_MARK && e.key == c.key && add != 0 && add == ^mask {
		r.push(SetMarkBits{Bits: add}, 3)
		return true
	}
	value := binary.NativeEndian.Uint32(c.data[:])
	if c.kind != exprCmp || c.op > unix.NFT_CMP_NEQ || c.n != 4 || add != 0 || value&^mask != 0 {
		return false
	}
	m := MatchMeta{Key: MetaMark, Not: c.op == unix.NFT_CMP_NEQ, Mask: mask, Value: value}
	if e.key == unix.NFT_META_PRIORITY {
		m.Key = MetaPriority
	}
	r.push(m, 3)
	return true
}

// compared reads what register 0 is compared with behind the load: an inclusive
// range, of n expressions.
func (r *raising) compared(size int) (first, last []byte, not bool, n int) {
	c, d := r.at(1), r.at(2)
	if c.reg != 0 || int(c.n) != size {
		return nil, nil, false, 0
	}
	switch {
	case c.kind == exprCmp && c.op <= unix.NFT_CMP_NEQ:
		return c.data[:size], c.data[:size], c.op == unix.NFT_CMP_NEQ, 2
	case c.kind == exprRange && c.op == unix.NFT_RANGE_NEQ:
		first, last, not, n = c.data[:size], c.mask[:size], true, 2
	case c.kind == exprCmp && c.op == unix.NFT_CMP_GTE &&
		d.kind == exprCmp && d.op == unix.NFT_CMP_LTE && d.reg == 0 && int(d.n) == size:
		first, last, not, n = c.data[:size], d.data[:size], false, 3
	default:
		return nil, nil, false, 0
	}
	if bytes.Compare(first, last) >= 0 {
		return nil, nil, false, 0
	}
	return first, last, not, n
}

// address reads the match of an address.
func (r *raising) address(e *expr) bool {
	m := MatchAddress{}
	size, family := 4, uint8(nfprotoIPv4)
	switch {
	case r.dep.nfproto == nfprotoIPv4 && e.off == sourceOffset4:
		m.Source = true
	case r.dep.nfproto == nfprotoIPv4 && e.off == destOffset4:
	case r.dep.nfproto == nfprotoIPv6 && e.off == sourceOffset6:
		m.Source, size, family = true, 16, nfprotoIPv6
	case r.dep.nfproto == nfprotoIPv6 && e.off == destOffset6:
		size, family = 16, nfprotoIPv6
	default:
		return false
	}
	var first, last [16]byte
	length, n := int(e.len), 0
	switch b, c := r.at(1), r.at(2); {
	case length == 0 || length > size:
		return false
	case b.kind == exprBitwise: // a prefix
		bits, ok := maskBits(b.mask[:size])
		if !ok || b.data != [16]byte{} || length != size || b.reg != 0 || int(b.n) != size || bits > 0 && bits%8 == 0 ||
			c.kind != exprCmp || c.reg != 0 || int(c.n) != size || c.op > unix.NFT_CMP_NEQ {
			return false
		}
		m.Not, n = c.op == unix.NFT_CMP_NEQ, 3
		for i := range size {
			if c.data[i]&^b.mask[i] != 0 {
				return false
			}
			first[i], last[i] = c.data[i], c.data[i]|^b.mask[i]
		}
	default:
		a, z, not, used := r.compared(length)
		if used == 0 || length < size && !bytes.Equal(a, z) {
			return false
		}
		m.Not, n = not, used
		copy(first[:], a)
		copy(last[:], z)
		for i := length; i < size; i++ {
			last[i] = 0xff
		}
	}
	m.First, _ = netip.AddrFromSlice(first[:size])
	m.Last, _ = netip.AddrFromSlice(last[:size])
	if n == 3 && r.at(1).kind == exprCmp || r.at(1).kind == exprRange {
		if _, prefix := rangePrefix(m.First, m.Last); prefix {
			return false // lowering writes it as a prefix
		}
	}
	if !r.need(family, 0) {
		return false
	}
	r.push(m, n)
	return true
}

// maskBits returns the length of the prefix whose mask it is.
func maskBits(mask []byte) (bits int, ok bool) {
	for bits < len(mask)*8 && bit(mask, bits) == 1 {
		bits++
	}
	for i := bits; i < len(mask)*8; i++ {
		if bit(mask, i) == 1 {
			return 0, false
		}
	}
	return bits, bits < len(mask)*8
}

// transport reads the match of ports, TCP's flags or an ICMP type.
func (r *raising) transport(e *expr) bool {
	if e.len == 2 && (e.off == sourcePortOffset || e.off == destPortOffset) {
		first, last, not, n := r.compared(2)
		if n == 0 || not {
			return false
		}
		m := MatchPort{
			Source: e.off == sourcePortOffset,
			First:  binary.BigEndian.Uint16(first), Last: binary.BigEndian.Uint16(last),
		}
		if r.dep.l4known && hasPorts(r.dep.l4proto) {
			m.Protocol = r.dep.l4proto
			r.need(0, m.Protocol)
		}
		r.push(m, n)
		return true
	}
	if e.len != 1 {
		return false
	}
	if e.off == 0 {
		first, last, not, n := r.compared(1)
		if n == 0 || not {
			return false
		}
		m := MatchICMP{V6: r.dep.nfproto == nfprotoIPv6, First: first[0], Last: last[0]}
		if m.V6 && !r.need(nfprotoIPv6, unix.IPPROTO_ICMPV6) || !m.V6 && !r.need(nfprotoIPv4, unix.IPPROTO_ICMP) {
			return false
		}
		r.push(m, n)
		return true
	}
	b, c := r.at(1), r.at(2)
	if e.off != tcpFlagsOffset || b.kind != exprBitwise || b.reg != 0 || b.n != 1 || b.data != [16]byte{} ||
		c.kind != exprCmp || c.reg != 0 || c.n != 1 || c.op > unix.NFT_CMP_NEQ || !r.need(0, unix.IPPROTO_TCP) {
		return false
	}
	r.push(MatchTCPFlags{Mask: b.mask[0], Value: c.data[0], Not: c.op == unix.NFT_CMP_NEQ}, 3)
	return true
}
