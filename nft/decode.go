package nft

import (
	"time"

	"golang.org/x/sys/unix"
)

// decodeExprs reads a rule's list of expressions. Expressions of other kinds and
// with attributes that encoding does not write become exprForeign.
func decodeExprs(out []expr, list attrs) ([]expr, error) {
	for list.next() {
		if list.typ != unix.NFTA_LIST_ELEM {
			continue
		}
		name, data, ok := list.expression()
		if !ok {
			return out, errMalformed
		}
		raw := data.rest
		e, ok := decodeExpr(name, data)
		if !ok {
			e = expr{kind: exprForeign, name: string(name), raw: string(raw)}
		}
		out = append(out, e)
	}
	if list.bad {
		return out, errMalformed
	}
	return out, nil
}

// expression returns the name and the attributes of a nested expression.
func (a *attrs) expression() (name []byte, data attrs, ok bool) {
	in := a.nested()
	for in.next() {
		switch in.typ {
		case unix.NFTA_EXPR_NAME:
			name = in.chars()
		case unix.NFTA_EXPR_DATA:
			data = in.nested()
		}
	}
	return name, data, !in.bad
}

// decoding is one expression being read; ok turns false at the first attribute
// that encoding would not write.
type decoding struct {
	attrs
	ok bool
}

// is demands a value of the attribute.
func (d *decoding) is(want bool) { d.ok = d.ok && want }

// reg reads a register.
func (d *decoding) reg() uint8 {
	word, ok := readRegister(d.u32())
	d.is(ok)
	return word
}

// fill reads data into at, and returns its length.
func (d *decoding) fill(at *[16]byte) uint8 {
	v := d.value()
	d.is(len(v) > 0 && len(v) <= len(at))
	return uint8(copy(at[:], v))
}

// decodeExpr reads one expression, false if it is none of those in use.
func decodeExpr(name []byte, in attrs) (expr, bool) {
	d := decoding{attrs: in, ok: true}
	var e expr
	switch string(name) {
	case "meta":
		e = d.meta()
	case "payload":
		e = d.payload()
	case "socket":
		e = d.socket()
	case "exthdr":
		e = d.exthdr()
	case "cmp":
		e = d.cmp()
	case "range":
		e = d.ranged()
	case "bitwise":
		e = d.bitwise()
	case "lookup":
		e = d.lookup()
	case "dynset":
		e = d.dynset()
	case "immediate":
		e = d.immediate()
	case "counter":
		e = d.counter()
	case "limit":
		e = d.limit()
	case "log":
		e = d.log()
	case "reject":
		e = d.reject()
	default:
		return e, false
	}
	return e, d.ok && !d.bad
}

func (d *decoding) meta() expr {
	e := expr{kind: exprForeign}
	for d.next() {
		switch d.typ {
		case unix.NFTA_META_KEY:
			e.key = d.u32()
		case unix.NFTA_META_DREG:
			e.kind, e.reg = exprMetaLoad, d.reg()
		case unix.NFTA_META_SREG:
			e.kind, e.reg = exprMetaStore, d.reg()
		default:
			d.is(false)
		}
	}
	d.is(e.kind != exprForeign)
	return e
}

func (d *decoding) payload() expr {
	e := expr{kind: exprPayload}
	for d.next() {
		switch d.typ {
		case unix.NFTA_PAYLOAD_DREG:
			e.reg = d.reg()
		case unix.NFTA_PAYLOAD_BASE:
			e.key = d.u32()
		case unix.NFTA_PAYLOAD_OFFSET:
			e.off = d.u32()
		case unix.NFTA_PAYLOAD_LEN:
			e.len = d.u32()
		default:
			d.is(false)
		}
	}
	return e
}

func (d *decoding) socket() expr {
	e := expr{kind: exprSocket}
	for d.next() {
		switch d.typ {
		case attrSocketKey:
			e.key = d.u32()
		case attrSocketDreg:
			e.reg = d.reg()
		case attrSocketLevel:
			e.off = d.u32()
		default:
			d.is(false)
		}
	}
	d.is(e.key == socketCgroupv2)
	return e
}

func (d *decoding) exthdr() expr {
	e := expr{kind: exprSCTPInit}
	seen := 0
	for d.next() {
		seen++
		switch d.typ {
		case unix.NFTA_EXTHDR_DREG:
			e.reg = d.reg()
		case unix.NFTA_EXTHDR_TYPE:
			d.is(d.u8() == sctpChunkInit)
		case unix.NFTA_EXTHDR_OFFSET:
			d.is(d.u32() == 0)
		case unix.NFTA_EXTHDR_LEN:
			d.is(d.u32() == 1)
		case unix.NFTA_EXTHDR_OP:
			d.is(d.u32() == exthdrOpSCTP)
		case unix.NFTA_EXTHDR_FLAGS:
			d.is(d.u32() == exthdrPresent)
		default:
			d.is(false)
		}
	}
	d.is(seen == 6)
	return e
}

func (d *decoding) cmp() expr {
	e := expr{kind: exprCmp}
	for d.next() {
		switch d.typ {
		case unix.NFTA_CMP_SREG:
			e.reg = d.reg()
		case unix.NFTA_CMP_OP:
			e.op = uint8(d.u32())
		case unix.NFTA_CMP_DATA:
			e.n = d.fill(&e.data)
		default:
			d.is(false)
		}
	}
	return e
}

func (d *decoding) ranged() expr {
	e := expr{kind: exprRange}
	n := uint8(0)
	for d.next() {
		switch d.typ {
		case unix.NFTA_RANGE_SREG:
			e.reg = d.reg()
		case unix.NFTA_RANGE_OP:
			e.op = uint8(d.u32())
		case unix.NFTA_RANGE_FROM_DATA:
			e.n = d.fill(&e.data)
		case unix.NFTA_RANGE_TO_DATA:
			n = d.fill(&e.mask)
		default:
			d.is(false)
		}
	}
	d.is(n == e.n)
	return e
}

func (d *decoding) bitwise() expr {
	e := expr{kind: exprBitwise}
	dreg, size, n, m := uint8(0), uint32(0), uint8(0), uint8(0)
	for d.next() {
		switch d.typ {
		case unix.NFTA_BITWISE_SREG:
			e.reg = d.reg()
		case unix.NFTA_BITWISE_DREG:
			dreg = d.reg()
		case unix.NFTA_BITWISE_LEN:
			size = d.u32()
		case unix.NFTA_BITWISE_MASK:
			n = d.fill(&e.mask)
		case unix.NFTA_BITWISE_XOR:
			m = d.fill(&e.data)
		case attrBitwiseOp:
			d.is(d.u32() == 0) // NFT_BITWISE_BOOL
		default:
			d.is(false)
		}
	}
	d.is(dreg == e.reg && size == uint32(n) && n == m)
	e.n = n
	return e
}

func (d *decoding) lookup() expr {
	e := expr{kind: exprLookup}
	for d.next() {
		switch d.typ {
		case unix.NFTA_LOOKUP_SREG:
			e.reg = d.reg()
		case unix.NFTA_LOOKUP_DREG:
			if reg := d.u32(); reg == regVerdict {
				e.kind = exprVMap
			} else {
				e.kind, e.dreg = exprLookupMap, d.reg()
			}
		case unix.NFTA_LOOKUP_SET:
			e.name = d.str()
		case unix.NFTA_LOOKUP_FLAGS:
			flags := d.u32()
			d.is(flags <= unix.NFT_LOOKUP_F_INV)
			e.op = uint8(flags)
		case unix.NFTA_LOOKUP_SET_ID:
		default:
			d.is(false)
		}
	}
	d.is(e.name != "" && (e.op == 0 || e.kind == exprLookup))
	return e
}

func (d *decoding) dynset() expr {
	e := expr{kind: exprUpdate}
	for d.next() {
		switch d.typ {
		case unix.NFTA_DYNSET_SREG_KEY:
			e.reg = d.reg()
		case unix.NFTA_DYNSET_SREG_DATA:
			e.dreg = d.reg()
		case unix.NFTA_DYNSET_OP:
			d.is(d.u32() == unix.NFT_DYNSET_OP_UPDATE)
		case unix.NFTA_DYNSET_SET_NAME:
			e.name = d.str()
		case unix.NFTA_DYNSET_FLAGS:
			d.is(d.u32() == 0)
		case unix.NFTA_DYNSET_TIMEOUT:
			d.is(d.u64() == 0) // the set's own
		case unix.NFTA_DYNSET_EXPR:
			name, data, ok := d.expression()
			limit, known := decodeExpr(name, data)
			d.is(ok && known && limit.kind == exprLimit)
			e.a, e.len = limit.a, limit.key
		case unix.NFTA_DYNSET_SET_ID, unix.NFTA_DYNSET_PAD:
		default:
			d.is(false)
		}
	}
	d.is(e.name != "")
	return e
}

func (d *decoding) immediate() expr {
	e := expr{kind: exprImmediate}
	isVerdict := false
	for d.next() {
		switch d.typ {
		case unix.NFTA_IMMEDIATE_DREG:
			if reg := d.u32(); reg == regVerdict {
				isVerdict = true
			} else {
				e.reg = d.reg()
			}
		case unix.NFTA_IMMEDIATE_DATA:
			if code, chain, ok := d.verdict(); ok {
				e.kind, e.off, e.name = exprVerdict, uint32(code), chain
			} else {
				e.n = d.fill(&e.data)
			}
		default:
			d.is(false)
		}
	}
	d.is(isVerdict == (e.kind == exprVerdict))
	return e
}

func (d *decoding) counter() expr {
	e := expr{kind: exprCounter}
	for d.next() {
		switch d.typ {
		case unix.NFTA_COUNTER_BYTES:
			e.b = d.u64()
		case unix.NFTA_COUNTER_PACKETS:
			e.a = d.u64()
		case unix.NFTA_COUNTER_PAD:
		default:
			d.is(false)
		}
	}
	return e
}

func (d *decoding) limit() expr {
	e := expr{kind: exprLimit}
	unit := uint64(0)
	for d.next() {
		switch d.typ {
		case unix.NFTA_LIMIT_RATE:
			e.a = d.u64()
		case unix.NFTA_LIMIT_UNIT:
			unit = d.u64()
		case unix.NFTA_LIMIT_BURST:
			e.key = d.u32()
		case unix.NFTA_LIMIT_TYPE:
			d.is(d.u32() == unix.NFT_LIMIT_PKTS)
		case unix.NFTA_LIMIT_FLAGS:
			d.is(d.u32() == 0)
		case unix.NFTA_LIMIT_PAD:
		default:
			d.is(false)
		}
	}
	d.is(unit == 1 && e.a != 0 && e.key != 0)
	return e
}

func (d *decoding) log() expr {
	e := expr{kind: exprLog}
	grouped := false
	for d.next() {
		switch d.typ {
		case unix.NFTA_LOG_PREFIX:
			e.name = d.str()
		case unix.NFTA_LOG_GROUP:
			e.len, grouped = uint32(d.u16()), true
		default:
			d.is(false)
		}
	}
	d.is(grouped && len(e.name) <= logPrefixMax && checkQuoted(e.name) == nil)
	return e
}

func (d *decoding) reject() expr {
	e := expr{kind: exprReject}
	for d.next() {
		switch d.typ {
		case unix.NFTA_REJECT_TYPE:
			e.key = d.u32()
		case unix.NFTA_REJECT_ICMP_CODE:
			e.off = uint32(d.u8())
		default:
			d.is(false)
		}
	}
	if e.key == rejectTCPReset {
		e.off = 0
	}
	return e
}

// decodeTable reads the attributes of a table.
func decodeTable(a attrs) (Table, error) {
	var t Table
	for a.next() {
		switch a.typ {
		case unix.NFTA_TABLE_NAME:
			t.Name = a.str()
		case unix.NFTA_TABLE_FLAGS:
			t.Flags = TableFlags(a.u32())
		case attrTableUserdata:
			t.Comment = a.comment(udataTableComment)
		}
	}
	return t, a.err()
}

// err returns the error of attributes that broke off.
func (a *attrs) err() error {
	if a.bad {
		return errMalformed
	}
	return nil
}

// decodeChain reads the attributes of a chain, and the table that it is in.
func decodeChain(a attrs) (table string, c Chain, err error) {
	var base Base
	foreign, isBase := false, false
	for a.next() {
		switch a.typ {
		case unix.NFTA_CHAIN_TABLE:
			table = a.str()
		case unix.NFTA_CHAIN_NAME:
			c.Name = a.str()
		case attrChainUserdata:
			c.Comment = a.comment(udataChainComment)
		case unix.NFTA_CHAIN_HOOK:
			isBase = true
			h := a.nested()
			for h.next() {
				switch h.typ {
				case unix.NFTA_HOOK_HOOKNUM:
					base.Hook = Hook(h.u32())
				case unix.NFTA_HOOK_PRIORITY:
					base.Priority = int32(h.u32())
				default:
					foreign = true
				}
			}
			a.bad = a.bad || h.bad
		case unix.NFTA_CHAIN_TYPE:
			foreign = foreign || string(a.chars()) != "filter"
		case unix.NFTA_CHAIN_POLICY:
			foreign = foreign || a.u32() != uint32(codeAccept)
		}
	}
	if isBase {
		base.Foreign = foreign
		c.Base = &base
	}
	return table, c, a.err()
}

// decodeSet reads the attributes of a set.
func decodeSet(a attrs) (Set, error) {
	var s Set
	flags, size, data := uint32(0), uint32(0), uint32(0)
	for a.next() {
		switch a.typ {
		case unix.NFTA_SET_NAME:
			s.Name = a.str()
		case unix.NFTA_SET_FLAGS:
			flags = a.u32()
		case unix.NFTA_SET_KEY_TYPE:
			s.Key = readKeyType(a.u32())
		case unix.NFTA_SET_KEY_LEN:
			size = a.u32()
		case unix.NFTA_SET_DATA_TYPE:
			data = a.u32()
		case unix.NFTA_SET_TIMEOUT:
			s.Timeout = time.Duration(a.u64()) * time.Millisecond
		case unix.NFTA_SET_DESC:
			in := a.nested()
			for in.next() {
				if in.typ == unix.NFTA_SET_DESC_SIZE {
					s.Size = in.u32()
				}
			}
			a.bad = a.bad || in.bad
		case unix.NFTA_SET_USERDATA:
			s.Comment = a.comment(udataSetComment)
		}
	}
	s.Dynamic = flags&unix.NFT_SET_EVAL != 0
	s.Interval = flags&unix.NFT_SET_INTERVAL != 0
	if flags&unix.NFT_SET_MAP != 0 {
		s.Data = typeByID(data)
		if data == unix.NFT_DATA_VERDICT {
			s.Data = TypeVerdict
		}
		s.Foreign = s.Data == TypeNone
	}
	if n, err := keySize(s.Key); err != nil || n != int(size) || flags != s.flags() || s.Interval && checkInterval(&s) != nil {
		s.Foreign = true
	}
	return s, a.err()
}

// decodeRule reads the attributes of a rule; scratch is memory to use again.
func decodeRule(a attrs, scratch []expr) (r Rule, _ []expr, err error) {
	scratch = scratch[:0]
	for a.next() {
		switch a.typ {
		case unix.NFTA_RULE_EXPRESSIONS:
			scratch, err = decodeExprs(scratch, a.nested())
			if err != nil {
				return r, scratch, err
			}
		case unix.NFTA_RULE_USERDATA:
			r.Comment = a.comment(udataRuleComment)
		}
	}
	r.Statements = raise(scratch)
	return r, scratch, a.err()
}

// decodeElement reads an element of the set, false if it has properties that are
// not modelled. Of a set of intervals it is half a one.
func decodeElement(a attrs, s *Set) (e Element, ok bool, err error) {
	ok = true
	flags := uint32(0)
	for a.next() {
		switch a.typ {
		case unix.NFTA_SET_ELEM_KEY:
			var is bool
			e.Key, is = readKey(a.value(), s.Key)
			ok = ok && is
		case unix.NFTA_SET_ELEM_DATA:
			if s.Data == TypeVerdict {
				code, chain, is := a.verdict()
				e.Verdict, ok = codeVerdict(code, chain)
				ok = ok && is
				continue
			}
			v := a.value()
			data, n, is := readValue(v, s.Data)
			e.Data = data
			ok = ok && is && n == len(v)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = a.comment(udataElementComment)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = a.u32()
		case unix.NFTA_SET_ELEM_PAD:
		default:
			ok = false
		}
	}
	if s.Interval && len(e.Key) == 1 && flags <= unix.NFT_SET_ELEM_INTERVAL_END {
		e.Key, flags = half(e.Key[0], flags != 0), 0
	}
	ok = ok && flags == 0
	return e, ok && e.Key != nil && e.isMapping() == s.IsMap(), a.err()
}
