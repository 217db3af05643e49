package model

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/model/modeltest/golden"
)

// TestBroken holds the messages about each broken policy of testdata/broken
// against the file "messages" of its archive.
func TestBroken(t *testing.T) {
	golden.Each(t, "testdata/broken/*.txtar", func(t *testing.T, a *txtar.Archive) []txtar.File {
		last := len(a.Files) - 1
		if a.Files[last].Name != "messages" {
			t.Fatal("the last file has to be messages")
		}
		var files []File
		for _, f := range a.Files[:last] {
			files = append(files, File{Name: f.Name, Data: f.Data})
		}
		_, diagnostics := Parse(files)
		var got strings.Builder
		for _, d := range diagnostics {
			fmt.Fprintln(&got, d)
		}
		if got.Len() == 0 {
			t.Fatal("nothing is wrong with it")
		}
		return golden.Last(a, got.String())
	})
}
