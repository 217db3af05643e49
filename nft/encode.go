package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Entries of user data in which nft(8) keeps comments and what it needs to print
// a set (libnftnl/udata.h).
const (
	udataTableComment   = 0 // NFTNL_UDATA_TABLE_COMMENT
	udataChainComment   = 0 // NFTNL_UDATA_CHAIN_COMMENT
	udataRuleComment    = 0 // NFTNL_UDATA_RULE_COMMENT
	udataElementComment = 0 // NFTNL_UDATA_SET_ELEM_COMMENT
	udataKeyOrder       = 0 // NFTNL_UDATA_SET_KEYBYTEORDER
	udataDataOrder      = 1 // NFTNL_UDATA_SET_DATABYTEORDER
	udataSetComment     = 7 // NFTNL_UDATA_SET_COMMENT

	orderNone = 0 // BYTEORDER_INVALID: concatenations, verdicts
	orderHost = 1 // BYTEORDER_HOST_ENDIAN
	orderBig  = 2 // BYTEORDER_BIG_ENDIAN
)

// Attributes that golang.org/x/sys/unix lacks
// (include/uapi/linux/netfilter/nf_tables.h).
const (
	attrTableUserdata = 6  // NFTA_TABLE_USERDATA
	attrChainUserdata = 12 // NFTA_CHAIN_USERDATA
	attrSocketKey     = 1  // NFTA_SOCKET_KEY
	attrSocketDreg    = 2  // NFTA_SOCKET_DREG
	attrSocketLevel   = 3  // NFTA_SOCKET_LEVEL
	attrBitwiseOp     = 6  // NFTA_BITWISE_OP
)

// regVerdict is the register of verdicts.
const regVerdict = unix.NFT_REG_VERDICT

// register returns the number of a register as nft(8) writes it: one of the four
// of 16 bytes where it begins one, else one of 4 bytes.
func register(word uint8) uint32 {
	if word%4 == 0 {
		return unix.NFT_REG_1 + uint32(word)/4
	}
	return unix.NFT_REG32_00 + uint32(word)
}

// readRegister is the inverse of register.
func readRegister(reg uint32) (word uint8, ok bool) {
	switch {
	case reg >= unix.NFT_REG_1 && reg <= unix.NFT_REG_4:
		return uint8(reg-unix.NFT_REG_1) * 4, true
	case reg >= unix.NFT_REG32_00 && reg <= unix.NFT_REG32_15:
		return uint8(reg - unix.NFT_REG32_00), true
	}
	return 0, false
}

// expression writes an element of a rule's list of expressions.
func (w *wire) expression(e *expr) {
	elem := w.nest(unix.NFTA_LIST_ELEM)
	w.str(unix.NFTA_EXPR_NAME, e.wireName())
	at := w.nest(unix.NFTA_EXPR_DATA)
	w.expressionData(e)
	w.unnest(at)
	w.unnest(elem)
}

// wireName returns the kernel's name of the expression.
func (e *expr) wireName() string {
	switch e.kind {
	case exprMetaLoad, exprMetaStore:
		return "meta"
	case exprPayload:
		return "payload"
	case exprSocket:
		return "socket"
	case exprSCTPInit:
		return "exthdr"
	case exprCmp:
		return "cmp"
	case exprRange:
		return "range"
	case exprBitwise:
		return "bitwise"
	case exprLookup, exprLookupMap, exprVMap:
		return "lookup"
	case exprUpdate:
		return "dynset"
	case exprImmediate, exprVerdict:
		return "immediate"
	case exprCounter:
		return "counter"
	case exprLimit:
		return "limit"
	case exprLog:
		return "log"
	case exprReject:
		return "reject"
	}
	return e.name
}

// expressionData writes the attributes of an expression, in libnftnl's order
// (src/expr/*.c).
func (w *wire) expressionData(e *expr) {
	switch e.kind {
	case exprMetaLoad:
		w.u32(unix.NFTA_META_KEY, e.key)
		w.u32(unix.NFTA_META_DREG, register(e.reg))
	case exprMetaStore:
		w.u32(unix.NFTA_META_KEY, e.key)
		w.u32(unix.NFTA_META_SREG, register(e.reg))
	case exprPayload:
		w.u32(unix.NFTA_PAYLOAD_DREG, register(e.reg))
		w.u32(unix.NFTA_PAYLOAD_BASE, e.key)
		w.u32(unix.NFTA_PAYLOAD_OFFSET, e.off)
		w.u32(unix.NFTA_PAYLOAD_LEN, e.len)
	case exprSocket:
		w.u32(attrSocketKey, e.key)
		w.u32(attrSocketDreg, register(e.reg))
		w.u32(attrSocketLevel, e.off)
	case exprSCTPInit:
		w.u32(unix.NFTA_EXTHDR_DREG, register(e.reg))
		w.u8(unix.NFTA_EXTHDR_TYPE, sctpChunkInit)
		w.u32(unix.NFTA_EXTHDR_OFFSET, 0)
		w.u32(unix.NFTA_EXTHDR_LEN, 1)
		w.u32(unix.NFTA_EXTHDR_OP, exthdrOpSCTP)
		w.u32(unix.NFTA_EXTHDR_FLAGS, exthdrPresent)
	case exprCmp:
		w.u32(unix.NFTA_CMP_SREG, register(e.reg))
		w.u32(unix.NFTA_CMP_OP, uint32(e.op))
		w.value(unix.NFTA_CMP_DATA, e.data[:e.n])
	case exprRange:
		w.u32(unix.NFTA_RANGE_SREG, register(e.reg))
		w.u32(unix.NFTA_RANGE_OP, uint32(e.op))
		w.value(unix.NFTA_RANGE_FROM_DATA, e.data[:e.n])
		w.value(unix.NFTA_RANGE_TO_DATA, e.mask[:e.n])
	case exprBitwise:
		w.u32(unix.NFTA_BITWISE_SREG, register(e.reg))
		w.u32(unix.NFTA_BITWISE_DREG, register(e.reg))
		w.u32(unix.NFTA_BITWISE_LEN, uint32(e.n))
		w.value(unix.NFTA_BITWISE_MASK, e.mask[:e.n])
		w.value(unix.NFTA_BITWISE_XOR, e.data[:e.n])
	case exprLookup:
		w.u32(unix.NFTA_LOOKUP_SREG, register(e.reg))
		w.str(unix.NFTA_LOOKUP_SET, e.name)
		if e.op != 0 {
			w.u32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
		}
	case exprLookupMap:
		w.u32(unix.NFTA_LOOKUP_SREG, register(e.reg))
		w.u32(unix.NFTA_LOOKUP_DREG, register(e.dreg))
		w.str(unix.NFTA_LOOKUP_SET, e.name)
	case exprVMap:
		w.u32(unix.NFTA_LOOKUP_SREG, register(e.reg))
		w.u32(unix.NFTA_LOOKUP_DREG, regVerdict)
		w.str(unix.NFTA_LOOKUP_SET, e.name)
	case exprUpdate:
		w.u32(unix.NFTA_DYNSET_SREG_KEY, register(e.reg))
		if e.dreg != 0 {
			w.u32(unix.NFTA_DYNSET_SREG_DATA, register(e.dreg))
		}
		w.u32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
		w.str(unix.NFTA_DYNSET_SET_NAME, e.name)
		if e.a != 0 {
			at := w.nest(unix.NFTA_DYNSET_EXPR)
			limit := expr{kind: exprLimit, a: e.a, key: e.len}
			w.str(unix.NFTA_EXPR_NAME, limit.wireName())
			data := w.nest(unix.NFTA_EXPR_DATA)
			w.expressionData(&limit)
			w.unnest(data)
			w.unnest(at)
		}
	case exprImmediate:
		w.u32(unix.NFTA_IMMEDIATE_DREG, register(e.reg))
		w.value(unix.NFTA_IMMEDIATE_DATA, e.data[:e.n])
	case exprVerdict:
		w.u32(unix.NFTA_IMMEDIATE_DREG, regVerdict)
		w.verdict(unix.NFTA_IMMEDIATE_DATA, int32(e.off), e.name)
	case exprCounter:
		w.u64(unix.NFTA_COUNTER_BYTES, e.b)
		w.u64(unix.NFTA_COUNTER_PACKETS, e.a)
	case exprLimit:
		w.u64(unix.NFTA_LIMIT_RATE, e.a)
		w.u64(unix.NFTA_LIMIT_UNIT, 1)
		w.u32(unix.NFTA_LIMIT_BURST, e.key)
		w.u32(unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS)
		w.u32(unix.NFTA_LIMIT_FLAGS, 0)
	case exprLog:
		if e.name != "" {
			w.str(unix.NFTA_LOG_PREFIX, e.name)
		}
		w.u16(unix.NFTA_LOG_GROUP, uint16(e.len))
	case exprReject:
		w.u32(unix.NFTA_REJECT_TYPE, e.key)
		w.u8(unix.NFTA_REJECT_ICMP_CODE, uint8(e.off))
	default:
		w.b = append(w.b, e.raw...)
	}
}

// table writes the attributes of a table.
func (w *wire) table(t *Table) error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	w.str(unix.NFTA_TABLE_NAME, t.Name)
	w.u32(unix.NFTA_TABLE_FLAGS, uint32(t.Flags))
	if err := checkComment(t.Comment); err != nil {
		return err
	}
	w.comment(attrTableUserdata, udataTableComment, t.Comment)
	return nil
}

// chain writes the attributes of a chain of the table.
func (w *wire) chain(table string, c *Chain) error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	w.str(unix.NFTA_CHAIN_TABLE, table)
	w.str(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Base != nil {
		if c.Base.Foreign {
			return errors.New("base chain of a kind that can't be written")
		}
		at := w.nest(unix.NFTA_CHAIN_HOOK)
		w.u32(unix.NFTA_HOOK_HOOKNUM, uint32(c.Base.Hook))
		w.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.Base.Priority))
		w.unnest(at)
		w.u32(unix.NFTA_CHAIN_POLICY, uint32(codeAccept))
		w.str(unix.NFTA_CHAIN_TYPE, "filter")
	}
	if err := checkComment(c.Comment); err != nil {
		return err
	}
	w.comment(attrChainUserdata, udataChainComment, c.Comment)
	return nil
}

// set writes the attributes of a set of the table; id tells the new sets of one
// transaction apart.
func (w *wire) set(table string, s *Set, id uint32) error {
	if s.Foreign {
		return errors.New("set of a kind that can't be written")
	}
	if err := checkName(s.Name); err != nil {
		return err
	}
	if err := checkComment(s.Comment); err != nil {
		return err
	}
	size, err := keySize(s.Key)
	if err == nil && s.Interval {
		err = checkInterval(s)
	}
	if err != nil {
		return err
	}
	w.str(unix.NFTA_SET_TABLE, table)
	w.str(unix.NFTA_SET_NAME, s.Name)
	w.u32(unix.NFTA_SET_FLAGS, s.flags())
	w.u32(unix.NFTA_SET_KEY_TYPE, keyType(s.Key))
	w.u32(unix.NFTA_SET_KEY_LEN, uint32(size))
	if s.IsMap() {
		info, ok := s.Data.info()
		switch {
		case !ok:
			return fmt.Errorf("%s is no type of data", s.Data)
		case s.Data == TypeVerdict:
			w.u32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
			w.u32(unix.NFTA_SET_DATA_LEN, 0)
		default:
			w.u32(unix.NFTA_SET_DATA_TYPE, info.id)
			w.u32(unix.NFTA_SET_DATA_LEN, uint32(info.size))
		}
	}
	w.u32(unix.NFTA_SET_ID, id)
	if s.Size != 0 {
		at := w.nest(unix.NFTA_SET_DESC)
		w.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
		w.unnest(at)
	}
	if s.Timeout != 0 {
		w.u64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout.Milliseconds()))
	}
	at := w.open(unix.NFTA_SET_USERDATA)
	w.udataOrder(udataKeyOrder, order(s.Key))
	if s.IsMap() {
		w.udataOrder(udataDataOrder, order([]Type{s.Data}))
	}
	if s.Comment != "" {
		w.udataComment(udataSetComment, s.Comment)
	}
	w.unnest(at)
	return nil
}

// udataOrder writes a byte order, which nft(8) reads as a number of the host.
func (w *wire) udataOrder(udata, order uint8) {
	b := [4]byte{order}
	if hostBigEndian {
		b = [4]byte{3: order}
	}
	w.b = append(w.b, udata, 4)
	w.b = append(w.b, b[:]...)
}

// flags returns the kernel's flags of the set.
func (s *Set) flags() uint32 {
	flags := uint32(0)
	if s.IsMap() {
		flags |= unix.NFT_SET_MAP
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.Timeout != 0 {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	return flags
}

// order returns nft(8)'s word for the byte order of a key or of data.
func order(types []Type) uint8 {
	if len(types) != 1 || types[0] == TypeVerdict {
		return orderNone
	}
	if info, _ := types[0].info(); info.host {
		return orderHost
	}
	return orderBig
}

// rule writes the attributes of a rule; scratch is memory to use again.
func (w *wire) rule(table string, r *RuleIn, scratch []expr) ([]expr, error) {
	if err := checkName(r.Chain); err != nil {
		return scratch, err
	}
	if err := checkComment(r.Rule.Comment); err != nil {
		return scratch, err
	}
	exprs, err := lower(scratch[:0], &r.Rule)
	if err != nil {
		return exprs, err
	}
	w.str(unix.NFTA_RULE_TABLE, table)
	w.str(unix.NFTA_RULE_CHAIN, r.Chain)
	at := w.nest(unix.NFTA_RULE_EXPRESSIONS)
	for i := range exprs {
		w.expression(&exprs[i])
	}
	w.unnest(at)
	w.comment(unix.NFTA_RULE_USERDATA, udataRuleComment, r.Rule.Comment)
	return exprs, nil
}

// interval writes an element of a set of intervals.
func (w *wire) interval(e *Element, verb Verb) error {
	if err := checkRange(e.Key); err != nil {
		return err
	}
	begin := Element{Key: e.Key[:1], Comment: e.Comment}
	if err := w.element(&begin, verb); err != nil {
		return err
	}
	last := e.Key[1]
	if err := last.check(last.Type); err != nil {
		return err
	}
	end, some := behind(last)
	if !some {
		return nil
	}
	elem := w.nest(unix.NFTA_LIST_ELEM)
	w.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	w.key([]Value{end})
	w.unnest(elem)
	return nil
}

// key writes the key of an element.
func (w *wire) key(key []Value) {
	at := w.nest(unix.NFTA_SET_ELEM_KEY)
	val := w.open(unix.NFTA_DATA_VALUE)
	w.b = appendKey(w.b, key)
	w.unnest(val)
	w.unnest(at)
}

// element writes an element; without its data if it is to be deleted.
func (w *wire) element(e *Element, verb Verb) error {
	if len(e.Key) == 0 {
		return errors.New("no key")
	}
	for _, v := range e.Key {
		if err := v.check(v.Type); err != nil {
			return err
		}
	}
	elem := w.nest(unix.NFTA_LIST_ELEM)
	start := len(w.b)
	w.key(e.Key)
	const heads = 2 * 4 // of the key and its value
	if len(w.b)-start-heads > maxKeyWords*4 {
		return errors.New("key is too long")
	}
	if verb == VerbAdd {
		switch {
		case e.Verdict.Kind != VerdictNone:
			code, err := verdictCode(e.Verdict)
			if err != nil {
				return err
			}
			w.verdict(unix.NFTA_SET_ELEM_DATA, code, e.Verdict.Chain)
		case e.Data.Type != TypeNone:
			if err := e.Data.check(e.Data.Type); err != nil {
				return err
			}
			at := w.nest(unix.NFTA_SET_ELEM_DATA)
			val := w.open(unix.NFTA_DATA_VALUE)
			w.b = appendValue(w.b, e.Data)
			w.unnest(val)
			w.unnest(at)
		}
		if err := checkComment(e.Comment); err != nil {
			return err
		}
		w.comment(unix.NFTA_SET_ELEM_USERDATA, udataElementComment, e.Comment)
	}
	w.unnest(elem)
	return nil
}
