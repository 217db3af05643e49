package nft

import (
	"encoding/gob"
	"slices"
)

// Tables can be kept with encoding/gob, which has to be told the types that a
// [Statement] can be.
func init() {
	for _, s := range []Statement{
		MatchMeta{}, MatchAddress{}, MatchPort{}, MatchICMP{}, MatchTCPFlags{}, MatchSCTPInit{}, MatchSet{}, VMap{},
		SetPriority{}, SetPriorityMap{}, SetMark{}, SetMarkMap{}, SetMarkBits{}, Update{}, Counter{}, Limit{}, Log{}, Verdict{}, Reject{}, Foreign{},
	} {
		gob.Register(s)
	}
}

// Foreign reports whether the table holds anything that this package can read
// but not write.
func (t *Table) Foreign() bool {
	return slices.ContainsFunc(t.Sets, func(s Set) bool { return s.Foreign }) ||
		slices.ContainsFunc(t.Chains, func(c Chain) bool {
			return c.Base != nil && c.Base.Foreign || slices.ContainsFunc(c.Rules, func(r Rule) bool {
				return slices.ContainsFunc(r.Statements, func(s Statement) bool { _, foreign := s.(Foreign); return foreign })
			})
		})
}
