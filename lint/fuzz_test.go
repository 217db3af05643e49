package lint_test

import (
	"strings"
	"testing"

	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest/golden"
)

// FuzzCheck holds Check to what it promises about any policy without errors: no
// panic, and each finding with its place, its kind, a message and a remedy.
func FuzzCheck(f *testing.F) {
	for _, data := range golden.Policies(f, "../examples/*.yaml", "testdata/*.txtar") {
		f.Add(data)
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
