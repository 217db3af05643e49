package model

import (
	"reflect"
	"strings"
	"testing"

	"github.com/sockns/sockns/model/modeltest/golden"
)

// FuzzParse holds Parse to what it promises about any input: no panic, the
// same answer twice, each message at a place in the file.
func FuzzParse(f *testing.F) {
	for _, data := range golden.Policies(f, "../examples/*.yaml", "testdata/broken/*.txtar") {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files := []File{{Name: "policy.yaml", Data: data}}
		policy, diagnostics := Parse(files)
		again, _ := Parse(files)
		if !reflect.DeepEqual(policy, again) {
			t.Fatal("not the same policy twice")
		}
		inPieces(1, func() {
			if pieces, other := Parse(files); !reflect.DeepEqual(policy, pieces) || !reflect.DeepEqual(diagnostics, other) {
				t.Fatalf("not the same in pieces: %v, %v", diagnostics, other)
			}
		})
		lines := strings.Count(string(data), "\n") + 1
		for i, d := range diagnostics {
			if d.Pos.File != "policy.yaml" || d.Pos.Line < 1 || d.Pos.Line > lines+1 || d.Pos.Column < 1 || d.Message == "" {
				t.Fatalf("%v: the file has %d lines", d, lines)
			}
			if i > 0 && d.Pos.Line < diagnostics[i-1].Pos.Line {
				t.Fatalf("%v after %v", d, diagnostics[i-1])
			}
		}
	})
}
