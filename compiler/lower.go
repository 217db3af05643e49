package compiler

import (
	"fmt"

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
}

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

// rule writes a rule to the current chain.
func (e *emitter) rule(comment string, statements ...nft.Statement) {
	e.cur.Rules = append(e.cur.Rules, nft.Rule{Statements: statements, Comment: comment})
}

// clause writes rules that carry out tail for each packet that matches one term
// of every dimension.
func (e *emitter) clause(dims [][]term, comment string, tail ...nft.Statement) {
	product := 1
	var multi [][]term
	var common term // of dimensions with one term
	for _, d := range dims {
		product *= len(d)
		if len(d) == 1 {
			common = append(common, d[0]...)
		} else {
			multi = append(multi, d)
		}
	}
	if product == 0 {
		return
	}
	if product <= productLimit || len(multi) < 2 {
		e.product(multi, common, comment, tail)
		return
	}
	// A chain for each dimension. What matches none of its terms goes on
	// behind the clause.
	after := e.reserve()
	for i, d := range multi {
		if i == len(multi)-1 {
			e.product([][]term{d}, nil, comment, tail)
			break
		}
		inner := e.reserve()
		for _, t := range d {
			e.rule("", append(append(term(nil), withFirst(common, i)...), append(t, jumpTo(nft.VerdictGoto, inner.Name))...)...)
		}
		e.rule("", jumpTo(nft.VerdictGoto, after.Name))
		e.cur = inner
	}
	e.rule("", jumpTo(nft.VerdictGoto, after.Name))
	e.cur = after
}

// withFirst returns the common terms for the first dimension only: what
// follows is reached by packets that have matched them.
func withFirst(common term, i int) term {
	if i == 0 {
		return common
	}
	return nil
}

func (e *emitter) product(dims [][]term, common term, comment string, tail []nft.Statement) {
	if len(dims) == 0 {
		e.rule(comment, append(append(term(nil), common...), tail...)...)
		return
	}
	for _, t := range dims[0] {
		e.product(dims[1:], append(append(term(nil), common...), t...), comment, tail)
	}
}

// logged returns a verdict that first writes a line to the kernel's log, at a
// bounded rate.
func (e *emitter) logged(prefix string, verdict nft.Statement) nft.Statement {
	const nflogPrefixMax = 127 // NF_LOG_PREFIXLEN - 1
	if len(prefix) > nflogPrefixMax {
		prefix = prefix[:nflogPrefixMax]
	}
	c := e.reserve()
	c.Rules = []nft.Rule{
		{Statements: []nft.Statement{nft.Limit{Rate: 10, Burst: 20}, nft.Log{Prefix: prefix}}},
		{Statements: []nft.Statement{verdict}},
	}
	return jumpTo(nft.VerdictGoto, c.Name)
}

func jumpTo(kind nft.VerdictKind, chain string) nft.Verdict {
	return nft.Verdict{Kind: kind, Chain: chain}
}
