package compiler

import (
	"time"

	"github.com/sockns/sockns/nft"
)

// A packet finds its policy in two steps: from the socket's cgroup to the class
// of its policy, and from the class to a chain. The class stands in skb->mark in
// between, as nftables has no other place for it (nft(8) 1.0.6 does not list
// rules whose registers lead from one map to another). The mark is 0 before and
// after; that of a packet which came with another is kept aside, by what tells
// the packet from those that are on their way at the same instant, and put back.
//
// A class without a chain is met by packets that saw the table of before a
// change, and is dropped: the sockets send again.

// keptMarks holds the marks that packets came with, until they leave the table.
const keptMarks = "marks_kept"

const (
	keptSize    = 1 << 18
	keptTimeout = 2 * time.Second
)

// keptKey is as much as nft(8) 1.0.6 takes as a key with data. The priority changes on the way.
var keptKey = []nft.Field{{Kind: nft.FieldL4Proto}, {Kind: nft.FieldIIF}, {Kind: nft.FieldSport}, {Kind: nft.FieldDport}}

var keptSet = nft.Set{
	Name:    keptMarks,
	Key:     []nft.Type{nft.TypeInetProto, nft.TypeIfIndex, nft.TypeInetService, nft.TypeInetService},
	Data:    nft.TypeMark,
	Dynamic: true,
	Timeout: keptTimeout,
	Size:    keptSize,
	Comment: "marks of packets that are in the table now",
}

var (
	anyMark  = nft.MatchMeta{Key: nft.MetaMark, Not: true}
	noMark   = nft.MatchMeta{Key: nft.MetaMark, Mask: markKept} // none is kept aside
	markBack = nft.SetMarkMap{Key: keptKey, Map: keptMarks}
	drop     = nft.Verdict{Kind: nft.VerdictDrop}
)

// keepMark returns the rules that set a packet's mark aside. What there is no
// room for is dropped.
func keepMark() []nft.Rule {
	return []nft.Rule{
		ruleOf(nft.Update{Set: keptMarks, Key: keptKey, Mark: true}, nft.SetMark{}),
		ruleOf(anyMark, drop),
	}
}

// restoreMark returns the rules that undo what this table did to the mark.
func restoreMark() []nft.Rule {
	return []nft.Rule{ruleOf(noMark, nft.SetMark{}), ruleOf(anyMark, markBack)}
}

// policyRules returns the rules that lead from the socket's cgroup, by the class
// of its policy, to what a map has for that; kept says that the packet's own mark
// is kept aside. before are asked when the class of a level below the deepest is known.
//
// Whether the receiver is in the sender's own namespace is asked by policies
// when they need to know (questions.go). That is sure at the deepest level
// alone: a cgroup of another may be the parent of the receiver's namespace.
func (a *assembly) policyRules(to string, kept bool, before ...func(level int) nft.Rule) []nft.Rule {
	lead := nft.VMap{Key: []nft.Field{{Kind: nft.FieldMark}}, Map: to}
	if kept {
		lead.Key = classField
	}
	var rules []nft.Rule
	for i, l := range a.deep {
		class := []nft.Statement{nft.SetMarkMap{Key: cgroupKey(l), Map: classMap(l)}}
		if kept {
			class = append(class, nft.SetMarkBits{Bits: markKept})
		}
		if i == 0 || len(before) == 0 {
			rules = append(rules, ruleOf(append(class, lead)...))
		} else {
			rules = append(rules, ruleOf(class...))
			for _, ask := range before {
				rules = append(rules, ask(l))
			}
			rules = append(rules, ruleOf(lead))
		}
		rules = append(rules, ruleOf(anyMark, drop))
	}
	return rules
}
