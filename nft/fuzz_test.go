package nft

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode feeds the decoders what a kernel would not say: they may refuse it,
// and what they do not refuse has to survive being written and read again.
func FuzzDecode(f *testing.F) {
	for _, r := range exampleTable().Chains[0].Rules {
		var w wire
		if _, err := w.rule("t", &RuleIn{Chain: "c", Rule: r}, nil); err != nil {
			f.Fatal(err)
		}
		f.Add(w.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := attrs{rest: b}
		_, _ = decodeTable(in)
		_, _, _ = decodeChain(in)
		_, _ = decodeGeneration(in)
		s, _ := decodeSet(in)
		_ = decodeElements(in, &s)
		for _, s := range exampleTable().Sets {
			_, _, _ = decodeElement(in, &s)
			_ = decodeElements(in, &s)
		}
		_ = eachMessage(b, func(m *message) error {
			extendedAck(m)
			_ = m.errno()
			return nil
		})
		elementAt(b, len(b)/2)
		r, exprs, err := decodeRule(in, nil)
		if err != nil {
			return
		}
		_ = r.String()
		lowered, err := lower(nil, &r)
		if err != nil {
			return // names that are not ours
		}
		if len(lowered) != len(exprs) {
			t.Fatalf("%s has %d expressions, was made from %d", r, len(lowered), len(exprs))
		}
		for i := range exprs {
			if lowered[i] != exprs[i] && lowered[i].kind != exprForeign {
				t.Fatalf("%s: expression %d is %+v, was %+v", r, i, lowered[i], exprs[i])
			}
		}
		var w wire
		if _, err := w.rule("t", &RuleIn{Chain: "c", Rule: Rule{Statements: r.Statements}}, nil); err != nil || w.small {
			return
		}
		again, _, err := decodeRule(attrs{rest: w.b}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.Statements, again.Statements, cmpAddr); diff != "" {
			t.Fatal(diff)
		}
	})
}
