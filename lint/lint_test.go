package lint_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest/golden"
)

// TestFindings looks at the policy of each archive, and holds what is found
// against the file findings. Each kind has to be found somewhere.
func TestFindings(t *testing.T) {
	found := make(map[string]bool)
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, a *txtar.Archive) []txtar.File {
		files := []model.File{{Name: a.Files[0].Name, Data: a.Files[0].Data}}
		p, diagnostics := model.Parse(files)
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		var got strings.Builder
		for _, f := range lint.Check(p, files) {
			found[f.ID] = true
			fmt.Fprintf(&got, "%s: %s [%s]\n", f.Pos, f.Message, f.ID)
			if f.Rule != "" {
				fmt.Fprintf(&got, "  %s\n", f.Rule)
			}
			fmt.Fprintf(&got, "  remedy: %s\n", f.Remedy)
			for _, r := range f.Related {
				fmt.Fprintf(&got, "  see %s: %s\n", r.Pos, r.Message)
			}
		}
		return golden.Last(a, got.String())
	})
	found[lint.TooManyPieces] = true // see TestTooManyPieces
	for _, k := range lint.Kinds {
		if !found[k.ID] {
			t.Errorf("no archive has a finding of the kind %s", k.ID)
		}
		delete(found, k.ID)
	}
	if len(found) > 0 {
		t.Errorf("kinds without a description: %v", found)
	}
}

// TestTooManyPieces looks at a list whose rules all overlap in their ports and
// not in their addresses: nothing is said of it, and what can be said of others is.
func TestTooManyPieces(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: sockns/v1\nsocketNamespaces:\n  web:\n    members: [{cgroup: /web}]\n    connect:\n")
	for i := range 250 {
		fmt.Fprintf(&b, "      - {protocol: tcp, ports: %d-%d, to: 10.0.%d.0/24}\n", 1000+i, 30000+i, i)
	}
	b.WriteString("      - {protocol: tcp, ports: 80, to: db}\n")
	b.WriteString("  db:\n    members: [{cgroup: /db}]\n    connect: [{to: any}, {protocol: tcp}]\n    accept: [{protocol: tcp, from: web}]\n")
	var ids []string
	for _, f := range check(t, "policy.yaml", b.String()) {
		ids = append(ids, f.ID)
	}
	if want := []string{lint.TooManyPieces, lint.ShadowedRule}; !slices.Equal(ids, want) {
		t.Errorf("found %v, want %v", ids, want)
	}
}
