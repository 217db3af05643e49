package nft

import (
	"golang.org/x/sys/unix"
)

// Counts is [Conn.Table] for whoever wants to know what was counted and no more:
// it takes the memory of the rules that have counted something, however many
// there are. The table has
//
//   - of rules those with a counter, of them the counter, what is logged, the
//     verdict and the comment; unless idle is set only those that are not at zero;
//   - of chains those with such a rule or a comment;
//   - of sets those that elements names, with their elements.
func (c *Conn) Counts(table string, idle bool, elements func(set string) bool) (*Table, error) {
	t, _, err := c.between(table, func() (*Table, error) { return c.readCounts(table, idle, elements) })
	return t, err
}

func (c *Conn) readCounts(table string, idle bool, elements func(set string) bool) (*Table, error) {
	t, err := c.header(table)
	if err != nil {
		return nil, err
	}
	if err := c.readSets(&t, elements); err != nil {
		return nil, err
	}
	// Most chains have a name alone, and are many.
	var names []string
	others := make(map[string]Chain)
	err = c.eachChain(table, func(chain Chain) {
		names = append(names, chain.Name)
		if chain.Comment != "" || chain.Base != nil {
			others[chain.Name] = chain
		}
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		chain, ok := others[name]
		if !ok {
			chain.Name = name
		}
		err := c.readRules(table, name, func(a attrs) error {
			r, counts, err := decodeCount(a, idle)
			if counts {
				chain.Rules = append(chain.Rules, r)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if chain.Rules != nil || chain.Comment != "" {
			t.Chains = append(t.Chains, chain)
		}
	}
	return &t, nil
}

// decodeCount reads what is counted by a rule, false if there is no such rule
// to read. It takes no memory then.
func decodeCount(a attrs, idle bool) (r Rule, counts bool, err error) {
	var exprs attrs
	var userdata []byte
	for a.next() {
		switch a.typ {
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = a.nested()
		case unix.NFTA_RULE_USERDATA:
			userdata = a.data
		}
	}
	if a.bad {
		return r, false, errMalformed
	}
	for list := exprs; list.next(); {
		name, data, ok := list.expression()
		if ok && string(name) == "counter" {
			d := decoding{attrs: data, ok: true}
			counts = counts || idle || d.counter().a > 0
		}
	}
	if !counts {
		return r, false, nil
	}
	for exprs.next() {
		name, data, ok := exprs.expression()
		if !ok {
			return r, false, errMalformed
		}
		d := decoding{attrs: data, ok: true}
		switch string(name) {
		case "counter":
			e := d.counter()
			r.Statements = append(r.Statements, Counter{Packets: e.a, Bytes: e.b})
		case "log":
			e := d.log()
			r.Statements = append(r.Statements, Log{Prefix: e.name, Group: uint16(e.len)})
		case "immediate":
			e := d.immediate()
			if v, ok := codeVerdict(int32(e.off), e.name); ok && e.kind == exprVerdict {
				r.Statements = append(r.Statements, v)
			}
		}
	}
	comment := attrs{data: userdata}
	r.Comment = comment.comment(udataRuleComment)
	return r, true, nil
}
