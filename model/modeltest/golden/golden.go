// Package golden runs tests whose input and expected output lie in one txtar
// archive; -update writes what is found.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is found to the golden files")

// Each runs test for each archive that the pattern finds. The files that it
// returns have to be those of the archive.
func Each(t *testing.T, pattern string, test func(t *testing.T, a *txtar.Archive) []txtar.File) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %d archives: %v", pattern, len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := txtar.Format(a)
			got := txtar.Format(&txtar.Archive{Comment: a.Comment, Files: test(t, a)})
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("other than the golden file; run with -update and read the change (-want +got):\n%s", diff)
			}
		})
	}
}

// Last returns the archive's files with another text in the last.
func Last(a *txtar.Archive, text string) []txtar.File {
	files := append([]txtar.File(nil), a.Files...)
	files[len(files)-1].Data = []byte(text)
	return files
}
