package nft

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// countsOf is what [Conn.Counts] reads of a table.
func countsOf(t *Table, idle bool, elements func(string) bool) *Table {
	all := &Table{Name: t.Name, Comment: t.Comment, Flags: t.Flags}
	for _, s := range t.Sets {
		if elements(s.Name) {
			all.Sets = append(all.Sets, s)
		}
	}
	for _, c := range t.Chains {
		var rules []Rule
		for _, r := range c.Rules {
			counts := false
			kept := Rule{Comment: r.Comment}
			for _, s := range r.Statements {
				switch s := s.(type) {
				case Counter:
					counts = counts || idle || s.Packets > 0
				case Log, Verdict:
				default:
					continue
				}
				kept.Statements = append(kept.Statements, s)
			}
			if counts {
				rules = append(rules, kept)
			}
		}
		if c.Rules = rules; rules != nil || c.Comment != "" {
			all.Chains = append(all.Chains, c)
		}
	}
	return all
}

// TestCounts reads the counters of tables, which are those of the whole table.
func TestCounts(t *testing.T) {
	c := newConn(t)
	if _, err := c.Counts("sockns", true, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the counters of no table: %v", err)
	}
	gen := genTable("sockns")
	rapid.Check(t, func(t *rapid.T) {
		table := gen.Draw(t, "table")
		for i := range table.Chains {
			for j := range table.Chains[i].Rules {
				r := &table.Chains[i].Rules[j]
				if n := rapid.Uint64Range(0, 3).Draw(t, "packets"); n > 0 {
					r.Statements = slices.Insert(slices.Clone(r.Statements), 0, Statement(Counter{Packets: n - 1, Bytes: n}))
				}
			}
		}
		defer func() {
			if tab, err := c.Table("sockns"); err == nil {
				apply(t, c, tab, nil)
			}
		}()
		apply(t, c, nil, table)
		whole, err := c.Table("sockns")
		if err != nil {
			t.Fatal(err)
		}
		for _, idle := range []bool{true, false} {
			elements := func(set string) bool { return len(set)%2 == 0 }
			got, err := c.Counts("sockns", idle, elements)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(countsOf(whole, idle, elements), got, cmp.Comparer(func(a, b Value) bool { return a == b })); diff != "" {
				t.Fatalf("idle %v: %s", idle, diff)
			}
		}
	})
}

// BenchmarkCounts reads the counters of the table of [BenchmarkRead], none of
// which has counted anything.
func BenchmarkCounts(b *testing.B) {
	c := newConn(b)
	apply(b, c, nil, bigTable(10000, 9, 10000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Counts("sockns", false, func(string) bool { return false }); err != nil {
			b.Fatal(err)
		}
	}
}
