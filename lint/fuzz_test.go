package lint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
)

// FuzzCheck holds Check to what it promises about any policy without errors: no
// panic, and each finding with its place, its kind, a message and a remedy.
func FuzzCheck(f *testing.F) {
	for _, pattern := range []string{"../examples/*.yaml", "testdata/*.txtar"} {
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
	kinds := make(map[string]bool)
	for _, k := range lint.Kinds {
		kinds[k.ID] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files := []model.File{{Name: "policy.yaml", Data: data}}
		p, diagnostics := model.Parse(files)
		if diagnostics.HasErrors() {
			return
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, found := range lint.Check(p, files) {
			if found.Pos.File != "policy.yaml" || found.Pos.Line < 1 || found.Pos.Line > lines || found.Pos.Column < 1 ||
				!kinds[found.ID] || found.Message == "" || found.Remedy == "" {
				t.Fatalf("%+v: the file has %d lines", found, lines)
			}
		}
	})
}
