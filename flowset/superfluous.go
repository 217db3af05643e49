package flowset

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// Use is what a rule is good for.
type Use struct {
	// Speaks says that there are flows that the rule matches, and Decides that
	// some of them reach it.
	Speaks, Decides bool
	// Superfluous says that each flow that it decides would get the same answer
	// without it, and be logged or not as now.
	Superfluous bool
	// By is, for a rule that decides nothing, what decides the flows that it
	// matches; for one that is superfluous, what would decide them.
	By []Deciding
	// Effect is what a rule does though it decides nothing.
	Effect Effect
}

// Effect is what changes with a rule besides the flows that it decides.
type Effect uint8

// The effects.
const (
	NoEffect    Effect = iota
	DeniesRest         // a bind rule: that there is one makes deny the default
	ClaimsPorts        // a bind rule: others get EADDRINUSE at its ports, and not EACCES
)

// Uses returns the use of each rule of the list. Of the rules that decide
// nothing or are superfluous, and have no other effect, each can be removed and
// all together can, and no answer changes; of the others that do not only count,
// none can be removed together with them. It is nil if the list is not exact.
func (l *List) Uses() []Use {
	if l.uses == nil && l.Exact() {
		l.uses = l.judged()
	}
	l.from, l.space.nodes = nil, nil // which nothing else asks for
	if !l.Exact() {
		l.uses = nil
	}
	return l.uses
}

func (l *List) judged() []Use {
	rules := l.n.Rules(l.hook)
	uses := make([]Use, len(rules))
	for i := range rules {
		ids := l.deciders(&rules[i])
		uses[i] = Use{
			Speaks:  slices.ContainsFunc(ids, func(id int) bool { return id != outside }),
			Decides: slices.ContainsFunc(ids, func(id int) bool { return id >= l.starts[i] && (rules[i].Audit || id < l.starts[i+1]) }),
		}
		if !uses[i].Decides {
			uses[i].By = l.deciding(ids)
		}
	}
	gone := make([]bool, len(rules))
	rest := l.from[l.starts[len(rules)]] // the rules behind that are not gone
	for i := len(rules) - 1; i >= 0; i-- {
		if !rules[i].Audit {
			gone[i] = l.judge(i, &uses[i], gone, rest)
		} else if !uses[i].Decides {
			uses[i].Effect = l.effect(i, gone)
			gone[i] = uses[i].Effect == NoEffect
		}
		if gone[i] || rules[i].Audit {
			continue
		}
		for k := l.starts[i+1] - 1; k >= l.starts[i]; k-- {
			rest = l.space.paint(rest, &l.clauses[k].box, l.ids[k])
		}
	}
	for i := range rules { // what was judged before the rules in front of it
		if !gone[i] && !rules[i].Audit && l.last(i, gone) {
			l.judge(i, &uses[i], gone, rest)
		}
	}
	return uses
}

// judge finds out whether a rule, alone and with those that are gone already,
// can be removed, and says so in its use.
func (l *List) judge(i int, use *Use, gone []bool, rest *Diagram) bool {
	if !use.Decides {
		use.Effect = l.effect(i, gone)
		return use.Effect == NoEffect
	}
	alone, by := l.sameWithout(i, make([]bool, len(gone)), l.from[l.starts[i+1]])
	if !alone || !l.quiet(i, gone) {
		return false
	}
	if together, _ := l.sameWithout(i, gone, rest); !together {
		return false
	}
	use.Superfluous, use.By = true, by
	return true
}

// sameWithout reports whether the flows that a rule decides get the same answer
// without it and those that are gone, from the rest of the list, and from which
// clauses.
func (l *List) sameWithout(i int, gone []bool, rest *Diagram) (bool, []Deciding) {
	if l.last(i, gone) {
		return l.sameAsNone()
	}
	same := true
	var by []int
	for k := l.starts[i]; k < l.starts[i+1]; k++ {
		l.space.walk(l.decides, rest, &l.clauses[k].box, func(now, then int) {
			if now >= l.starts[i] && now < l.starts[i+1] {
				same = same && l.sameAnswer(now, then)
				by = append(by, then)
			}
		})
	}
	slices.Sort(by)
	return same, l.deciding(slices.Compact(by))
}

// last reports whether a bind rule is the last one that is not gone, and its
// removal makes allow the default.
func (l *List) last(i int, gone []bool) bool {
	if l.hook != model.Bind || l.n.Default.Bind != nil {
		return false
	}
	for j := range gone {
		if j != i && !gone[j] {
			return false
		}
	}
	return true
}

// sameAsNone reports whether the list says what no bind rules would say, where
// allow is the default, and what decides then.
func (l *List) sameAsNone() (bool, []Deciding) {
	if l.none == nil {
		bare := *l.n
		bare.Bind = nil
		w := l.writer(&bare)
		w.write()
		first := len(l.clauses)
		l.clauses = append(l.clauses, w.out...)
		l.number()
		l.none = l.space.constant(l.ids[len(l.ids)-1])
		for k := len(l.clauses) - 2; k >= first; k-- {
			l.none = l.space.paint(l.none, &l.clauses[k].box, l.ids[k])
		}
	}
	same := true
	var by []int
	l.space.walk(l.decides, l.none, &l.space.domain, func(now, then int) {
		if now != outside {
			same = same && l.sameAnswer(now, then)
		}
		if now != outside && l.clauses[now].rule > 0 {
			by = append(by, then)
		}
	})
	slices.Sort(by)
	return same, l.deciding(slices.Compact(by))
}

// effect returns what the removal of a rule that decides nothing changes.
func (l *List) effect(i int, gone []bool) Effect {
	switch {
	case l.last(i, gone):
		if same, _ := l.sameAsNone(); !same {
			return DeniesRest
		}
	case !l.quiet(i, gone):
		return ClaimsPorts
	}
	return NoEffect
}

// quiet reports whether no other namespace's bind gets another errno when a
// rule is removed, alone or with those that are gone.
func (l *List) quiet(i int, gone []bool) bool {
	r := &l.n.Rules(l.hook)[i]
	if l.hook != model.Bind || !claimsPort(r, model.TCP) && !claimsPort(r, model.UDP) {
		return true
	}
	return !l.all.missed(l.n, func(j int) bool { return j == i }) &&
		!l.all.missed(l.n, func(j int) bool { return j == i || gone[j] })
}
