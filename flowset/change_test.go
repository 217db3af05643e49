package flowset_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/model/modeltest"
)

var update = flag.Bool("update", false, "write what is found to the golden files")

// TestChanges compares the first two files of each archive and holds the
// changes against the third.
func TestChanges(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d archives: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			a, b := modeltest.Parse(t, string(archive.Files[0].Data)), modeltest.Parse(t, string(archive.Files[1].Data))
			for _, c := range flowset.Compare(a, b) {
				fmt.Fprintln(&got, c.Sign(), c)
			}
			if *update {
				archive.Files[2].Data = []byte(got.String())
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(archive.Files[2].Data), got.String()); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}
