package nft

// expr is one expression of the kernel's nftables, of the kinds that statements
// are encoded to. It is comparable: two rules are the same if their expressions are.
//
// Registers are numbered in words of four bytes from 0 (NFT_REG32_00), so that
// the kernel's two ways to name one (NFT_REG_1 is NFT_REG32_00 and the three
// behind it) are the same here.
type expr struct {
	kind exprKind
	op   uint8 // cmp, range: the operator; lookup: whether inverted
	reg  uint8 // register read, or written by loads; lookup and immediate with data: see dreg
	dreg uint8 // lookup in a map: register written; dynset: register of the data, 0 if there is none
	n    uint8 // length of data and mask

	key uint32 // meta, socket: the key; payload: the base; limit: the burst; reject: the type
	off uint32 // payload: the offset; socket: the level; reject: the code; immediate: the verdict
	len uint32 // payload: the length; dynset: the limit's burst; log: the group

	data [16]byte // cmp, immediate: the value; range: the first
	mask [16]byte // bitwise: the mask, data being what is added; range: the last
	name string   // lookup, dynset: the set; verdict: the chain; log: the prefix; foreign: the name

	a, b uint64 // counter: packets and bytes; limit, dynset: the rate
	raw  string // foreign: the attributes
}

// exprKind says which expression.
type exprKind uint8

const (
	exprForeign exprKind = iota
	exprMetaLoad
	exprMetaStore
	exprPayload
	exprSocket
	exprSCTPInit
	exprCmp
	exprRange
	exprBitwise
	exprLookup    // in a set
	exprLookupMap // with a destination register
	exprVMap      // with the verdict register as destination
	exprUpdate
	exprImmediate
	exprVerdict
	exprCounter
	exprLimit
	exprLog
	exprReject
)

// words is how many registers a value of n bytes fills.
func words(n int) int { return (n + 3) / 4 }
