package model

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is found to the golden files")

// TestBroken holds the messages about each broken policy of testdata/broken
// against the file "messages" of its archive.
func TestBroken(t *testing.T) {
	paths, err := filepath.Glob("testdata/broken/*.txtar")
	if err != nil || len(paths) < 60 {
		t.Fatalf("%d broken policies: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			last := len(archive.Files) - 1
			if archive.Files[last].Name != "messages" {
				t.Fatal("the last file has to be messages")
			}
			var files []File
			for _, f := range archive.Files[:last] {
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
			if *update {
				archive.Files[last].Data = []byte(got.String())
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(archive.Files[last].Data), got.String()); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}
