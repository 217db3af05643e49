package nft

import (
	"bytes"
	"encoding/gob"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestGob: a table that was kept is the same table.
func TestGob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := genTable("sockns").Draw(t, "table")
		table.Chains = append(table.Chains, Chain{Name: "x", Rules: []Rule{{Statements: []Statement{Foreign{Name: "ct", Raw: []byte{1}}}}}})
		var kept bytes.Buffer
		if err := gob.NewEncoder(&kept).Encode(table); err != nil {
			t.Fatal(err)
		}
		var got *Table
		if err := gob.NewDecoder(&kept).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(table, got, cmpAddr); d != "" {
			t.Fatal(d)
		}
	})
}
