package compiler

import (
	"slices"
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
	hasKept  = nft.MatchMeta{Key: nft.MetaMark, Mask: markKept, Value: markKept}
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

// lead is a way from sockets to what their policies say.
type lead struct {
	to   string // a map of classes
	only term   // which packets; empty: all that get there
	kept bool   // the packet's own mark is kept aside
	// ask is asked when the class of a level below the deepest is known; nil: nothing.
	ask func(level int) nft.Rule
}

// policyRules returns the rules that lead from the socket's cgroup, by the class
// of its policy, to what a map has for that.
//
// Whether the receiver is in the sender's own namespace is asked by policies
// when they need to know (questions.go). That is sure at the deepest level
// alone: a cgroup of another may be the parent of the receiver's namespace.
func (a *assembly) policyRules(w lead) []nft.Rule {
	to := nft.VMap{Key: []nft.Field{{Kind: nft.FieldMark}}, Map: w.to}
	if w.kept {
		to.Key = classField
	}
	var rules []nft.Rule
	for i, l := range a.deep {
		class := append(slices.Clone(w.only), nft.SetMarkMap{Key: cgroupKey(l), Map: classMap(l)})
		if w.kept {
			class = append(class, nft.SetMarkBits{Bits: markKept})
		}
		if i == 0 || w.ask == nil {
			rules = append(rules, ruleOf(append(class, to)...))
		} else {
			rules = append(rules, ruleOf(class...), w.ask(l), ruleOf(append(slices.Clone(w.only), to)...))
		}
		rules = append(rules, ruleOf(anyMark, drop))
	}
	return rules
}

// sender returns the rule that asks what the connecting end's policy says. Where
// there are templates two maps are asked, and the second not when the first has
// answered, whose elements go and don't jump: the priority may be the receiver's
// by then (chainWhose).
func (a *assembly) sender() nft.Rule {
	if a.templates {
		return ruleOf(jumpTo(nft.VerdictJump, chainSender))
	}
	return ruleOf(nft.VMap{Key: []nft.Field{priorityField}, Map: namespacesMap})
}

// senderChain makes the chain of [assembly.sender].
func (a *assembly) senderChain() {
	if !a.templates {
		return
	}
	a.chain(chainSender, "what does the connecting end say?",
		ruleOf(nft.VMap{Key: []nft.Field{{Kind: nft.FieldPriority, Mask: templateMask}}, Map: templatesMap}),
		ruleOf(nft.VMap{Key: []nft.Field{priorityField}, Map: namespacesMap}))
}
