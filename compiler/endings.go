package compiler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// ending is where a refusal ends: a chain that tells of it and rejects the
// packet. All policies share those that they have in common.
type ending struct {
	end   End
	hook  model.Hook
	rule  int // from 1; 0: the default
	errno model.Errno
}

func compareEndings(a, b ending) int {
	return cmp.Or(cmp.Compare(a.hook, b.hook), cmp.Compare(a.rule, b.rule), cmp.Compare(a.end, b.end), cmp.Compare(a.errno, b.errno))
}

// refusePrefix begins the names of the chains of endings, which nothing else
// does: a dot is in no namespace's name.
const refusePrefix = "refuse."

// chain names the ending's chain.
func (e ending) chain() string {
	return fmt.Sprintf(refusePrefix+"%s.%s.%d.%s", e.end, e.hook, e.rule, strings.ToLower(string(e.errno)))
}

// marksMap maps each identity to itself, as a mark: nft(8) has no other way to
// copy the priority of a packet to its mark, which is what nfnetlink_log shows.
// Only packets that are about to be rejected are marked.
const marksMap = "marks"

// reportedSet holds who was refused by whom lately, and how much of it is
// logged: a flood of refusals costs a lookup each.
const reportedSet = "reported"

const (
	reportedSize    = 1 << 16
	reportedTimeout = 10 * time.Second
	reportedRate    = 16 // a second
	reportedBurst   = 32
	// endingRate bounds what the refusals of one ending log, however many
	// namespaces are refused.
	endingRate  = 1000 // a second
	endingBurst = 2000
)

func markValue(id uint32) nft.Value { return nft.Value{Type: nft.TypeMark, Num: uint64(id)} }

var markField = nft.Field{Kind: nft.FieldMark}

// reportSets makes the sets that refusals need.
func (a *assembly) reportSets() []nft.Set {
	marks := nft.Set{Name: marksMap, Key: []nft.Type{nft.TypeClassID}, Data: nft.TypeMark, Linger: true,
		Comment: "identities as marks, for the log"}
	for _, id := range []uint32{unmanagedIdentity, loopedIdentity, remoteIdentity} {
		marks.Elements = append(marks.Elements, nft.Element{Key: []nft.Value{identityValue(id)}, Data: markValue(id)})
	}
	return []nft.Set{marks, {
		Name: reportedSet, Key: []nft.Type{nft.TypeClassID, nft.TypeMark}, Dynamic: true,
		Timeout: reportedTimeout, Size: reportedSize, Comment: "both ends of what was refused lately: bounds what is logged",
	}}
}

// refusalChains makes the chains of the endings that policies lead to.
func (a *assembly) refusalChains(policies map[string]*chains) {
	used := make(map[ending]bool)
	for c := range distinct(policies) {
		for e := range c.endings {
			used[e] = true
		}
	}
	list := make([]ending, 0, len(used))
	for e := range used {
		list = append(list, e)
	}
	slices.SortFunc(list, compareEndings)
	for _, e := range list {
		a.chain(e.chain(), "", append(e.report(a.whose(), a.sender()), reject(e.errno)...)...)
	}
}

// report returns the rules that tell of a refusal; whose are those of
// chainWhose, written out because refusals are as deep as chains get, and sender
// asks the connecting end. What they write to the
// packet nobody else will see. Priority and mark become the identities of the
// two ends; the one that the log's prefix goes with is [End]'s.
func (e ending) report(whose []nft.Rule, sender nft.Rule) []nft.Rule {
	toMark := nft.SetMarkMap{Key: []nft.Field{priorityField}, Map: marksMap}
	unknown := ruleOf(nft.SetMark{Value: loopedIdentity})
	var rules []nft.Rule
	switch e.end {
	case EndOut:
		rules = append(whose, unknown, ruleOf(toMark))
	case EndFrom:
		rules = append([]nft.Rule{unknown, ruleOf(toMark)}, whose...)
	case EndTo:
		// The connecting end is asked before: its own error comes first.
		rules = append([]nft.Rule{unknown, ruleOf(toMark), sender}, whose...)
	case EndOf: // the policy has set the mark, and the priority is the receiver's
	}
	prefix := Prefix{Outcome: Refused, End: e.end, Hook: e.hook, Rule: e.rule, Errno: e.errno}
	var log []nft.Statement
	if e.end == EndTo {
		// The connecting end's own refusal was counted by the policy, too.
		log = append(log, nft.Counter{})
	}
	log = append(log,
		nft.Update{Set: reportedSet, Key: []nft.Field{priorityField, markField}, Limit: nft.Limit{Rate: reportedRate, Burst: reportedBurst}},
		nft.Limit{Rate: endingRate, Burst: endingBurst},
		nft.Log{Prefix: prefix.String(), Group: LogGroup})
	if e.end != EndOut {
		log = append(log, toMark, nft.Log{Prefix: PeerPrefix, Group: LogGroup})
	}
	return append(rules, ruleOf(log...))
}

// rejections says how packets tell each error; docs/errors.md has what
// applications see.
var rejections = map[model.Errno]struct {
	reset  bool // TCP is reset
	silent bool // dropped
	code   nft.ICMPX
}{
	model.ECONNREFUSED: {reset: true, code: nft.ICMPXPortUnreachable},
	model.EHOSTUNREACH: {code: nft.ICMPXHostUnreachable},
	model.ENETUNREACH:  {code: nft.ICMPXNoRoute},
	model.EACCES:       {code: nft.ICMPXAdminProhibited},
	model.EPERM:        {code: nft.ICMPXAdminProhibited},
	model.ETIMEDOUT:    {silent: true},
}

// reject returns the rules that reject a packet with an error.
func reject(errno model.Errno) []nft.Rule {
	how := rejections[errno]
	if how.silent {
		return []nft.Rule{ruleOf(nft.Verdict{Kind: nft.VerdictDrop})}
	}
	var rules []nft.Rule
	if how.reset {
		rules = append(rules, ruleOf(nft.MatchMeta{Key: nft.MetaL4Proto, Value: protoTCP}, nft.Reject{TCPReset: true}))
	}
	return append(rules, ruleOf(nft.Reject{ICMPX: how.code}))
}
