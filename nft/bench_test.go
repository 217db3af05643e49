package nft

import (
	"testing"
)

// BenchmarkCommitElement adds an element to a map and deletes it again, each in
// a transaction of its own, in a table of 1,000 chains.
func BenchmarkCommitElement(b *testing.B) {
	c := newConn(b)
	apply(b, c, nil, bigTable(1000, 9, 1000))
	e := ElementsIn{Set: "ids", Elements: []Element{{Key: []Value{cgroup(1<<40, "")}, Verdict: Verdict{Kind: VerdictAccept}}}}
	add := Batch{Ops: []Op{{VerbAdd, "sockns", e}}}
	del := Batch{Ops: []Op{{VerbDelete, "sockns", e}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Commit(add); err != nil {
			b.Fatal(err)
		}
		if err := c.Commit(del); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/commit")
}

// BenchmarkLoad makes a table of 10,000 chains with 9 rules each, and deletes it.
func BenchmarkLoad(b *testing.B) {
	c := newConn(b)
	table := bigTable(10000, 9, 10000)
	for b.Loop() {
		apply(b, c, nil, table)
		b.StopTimer()
		apply(b, c, table, nil)
		b.StartTimer()
	}
}

// BenchmarkRead reads the same table back.
func BenchmarkRead(b *testing.B) {
	c := newConn(b)
	apply(b, c, nil, bigTable(10000, 9, 10000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Table("sockns"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDiff compares two such tables that are the same.
func BenchmarkDiff(b *testing.B) {
	old, new := bigTable(10000, 9, 10000), bigTable(10000, 9, 10000)
	b.ReportAllocs()
	for b.Loop() {
		if tx := Diff(old, new); !tx.Empty() {
			b.Fatal("differs")
		}
	}
}
