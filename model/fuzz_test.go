package model

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzParse holds Parse to what it promises about any input: no panic, the
// same answer twice, each message at a place in the file.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"../examples/*.yaml", "testdata/broken/*.txtar"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if strings.HasSuffix(path, ".txtar") {
				data = txtar.Parse(data).Files[0].Data
			}
			f.Add(data)
		}
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
