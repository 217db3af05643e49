package compiler

import (
	"fmt"
	"slices"

	"github.com/sockns/sockns/nft"
)

// productLimit is the most rules that a clause becomes by writing out all
// combinations of its terms; beyond it each dimension gets a chain.
const productLimit = 8

// emitter writes the clauses of one list as rules. The list is a chain and its
// continuations: a chain that is left with goto, so that a verdict return
// anywhere in the list returns to whoever jumped to its first chain.
type emitter struct {
	chains []*nft.Chain
	cur    *nft.Chain
	name   string
	n      int
	// returning says that a verdict of the list is return, which has to leave
	// the list; depth counts the chains that lead on.
	returning bool
	depth     int
	// flat says that no more chains may lead on: all combinations are written out.
	flat bool
}

// returningDepth is how many chains of a returning list may lead on to one
// another: what NFT_JUMP_STACK_SIZE (16) leaves on the longest way, from input
// through both ends' lists to a rejection.
const returningDepth = 3

func newEmitter(name string) *emitter {
	e := &emitter{name: name}
	e.cur = &nft.Chain{Name: name}
	e.chains = []*nft.Chain{e.cur}
	return e
}

// reserve makes a chain that is not written to yet.
func (e *emitter) reserve() *nft.Chain {
	e.n++
	c := &nft.Chain{Name: fmt.Sprintf("%s.%d", e.name, e.n)}
	e.chains = append(e.chains, c)
	return c
}

// reserveNamed is reserve for a chain with a name of its own below the list's.
func (e *emitter) reserveNamed(name string) *nft.Chain {
	c := &nft.Chain{Name: e.name + "." + name}
	e.chains = append(e.chains, c)
	return c
}

// rule writes a rule to the current chain.
func (e *emitter) rule(comment string, statements ...nft.Statement) {
	if e.cur.Rules == nil {
		e.cur.Rules = make([]nft.Rule, 0, 8)
	}
	e.cur.Rules = append(e.cur.Rules, nft.Rule{Statements: statements, Comment: comment})
}

// clause writes rules that carry out tail, after log if there is one, for each
// packet that matches one term of every dimension. Where writing out all combinations would take many
// rules, the longest dimension gets a chain of its own.
//
// The kernel bounds how deep chains may lead into one another, jumps and gotos
// alike (NFT_JUMP_STACK_SIZE, nft_chain_validate in net/netfilter/nf_tables_api.c),
// so that chain comes back, and the depth does not grow with the list.
func (e *emitter) clause(dims [][]term, comment string, log []nft.Statement, tail ...nft.Statement) {
	product, longest := 1, 0
	var room [3][]term
	multi := room[:0]
	common := make(term, 0, 4) // of dimensions with one term
	for _, d := range dims {
		product *= len(d)
		if len(d) == 1 {
			common = append(common, d[0]...)
			continue
		}
		multi = append(multi, d)
		if len(d) > len(multi[longest]) {
			longest = len(multi) - 1
		}
	}
	if product == 0 {
		return
	}
	if product <= productLimit || len(multi) < 2 || e.flat {
		e.product(multi, common, comment, log, tail)
		return
	}
	rest := slices.Delete(slices.Clone(multi), longest, longest+1)
	switch {
	case !e.returning || !e.mayReturn(tail):
		inner := e.reserve()
		e.product(rest, common, "", nil, []nft.Statement{jumpTo(nft.VerdictJump, inner.Name)})
		list := e.cur
		e.cur = inner
		e.product([][]term{multi[longest]}, nil, comment, log, tail)
		e.cur = list
	case e.deeper(2):
		// A return has to leave the whole list: lead on instead of coming back.
		inner, after := e.reserve(), e.reserve()
		e.product(rest, common, "", nil, []nft.Statement{jumpTo(nft.VerdictGoto, inner.Name)})
		e.rule("", jumpTo(nft.VerdictGoto, after.Name))
		e.cur = inner
		e.product([][]term{multi[longest]}, nil, comment, log, tail)
		e.rule("", jumpTo(nft.VerdictGoto, after.Name))
		e.cur = after
	default:
		e.product(multi, common, comment, log, tail)
	}
}

// deeper reports whether a list that is left with return may lead on n times
// more, and takes note of it.
func (e *emitter) deeper(n int) bool {
	if e.depth+n > returningDepth {
		return false
	}
	e.depth += n
	return true
}

// mayReturn reports whether a rule's statements can end in a return, or go on
// in this list.
func (e *emitter) mayReturn(tail []nft.Statement) bool {
	v, ok := tail[len(tail)-1].(nft.Verdict)
	if !ok || v.Kind == nft.VerdictReturn {
		return true
	}
	return slices.ContainsFunc(e.chains, func(c *nft.Chain) bool {
		if c.Name != v.Chain {
			return false
		}
		if len(c.Rules) == 0 {
			return true // the rest of the list, not written yet
		}
		return e.mayReturn(c.Rules[len(c.Rules)-1].Statements)
	})
}

func (e *emitter) product(dims [][]term, common term, comment string, log, tail []nft.Statement) {
	if len(dims) == 0 {
		if contradicts(common) {
			return
		}
		if len(log) > 0 {
			e.rule("", slices.Concat(common, log)...)
		}
		e.rule(comment, slices.Concat(common, tail)...)
		return
	}
	for _, t := range dims[0] {
		e.product(dims[1:], slices.Concat(common, t), comment, log, tail)
	}
}

// contradicts reports whether a term asks for addresses of both families: no
// packet matches it, and nft(8) takes no such rule.
func contradicts(t term) bool {
	four, six := false, false
	for _, s := range t {
		switch s := s.(type) {
		case nft.MatchAddress:
			four, six = four || s.First.Is4(), six || s.First.Is6()
		case nft.MatchSet:
			for _, f := range s.Key {
				four = four || f.Kind == nft.FieldSource4 || f.Kind == nft.FieldDest4
				six = six || f.Kind == nft.FieldSource6 || f.Kind == nft.FieldDest6
			}
		}
	}
	return four && six
}

func jumpTo(kind nft.VerdictKind, chain string) nft.Verdict {
	return nft.Verdict{Kind: kind, Chain: chain}
}
