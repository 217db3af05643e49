package lint_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestExamplesAndDocumentation finds nothing in the policies of examples, and
// in those of the documentation that members may be unprotected at most: they
// are parts of a machine's policy.
func TestExamplesAndDocumentation(t *testing.T) {
	examples, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(examples) < 4 {
		t.Fatalf("%d examples: %v", len(examples), err)
	}
	for _, file := range examples {
		for _, f := range check(t, file, read(t, file)) {
			t.Errorf("%s: %s [%s]", f.Pos, f.Message, f.ID)
		}
	}
	blocks := 0
	for _, file := range []string{"../docs/language.md", "../docs/testing-policies.md", "../docs/lint.md", "../README.md"} {
		text := read(t, file)
		for _, at := range yamlBlock.FindAllStringSubmatchIndex(text, -1) {
			block := text[at[2]:at[3]]
			if !strings.Contains(block, "socketNamespaces:") {
				continue
			}
			blocks++
			if !strings.Contains(block, "apiVersion:") {
				block = "apiVersion: " + model.APIVersion + "\n" + block
			}
			for _, f := range check(t, file, block) {
				if f.ID != lint.UnprotectedBirth {
					t.Errorf("%s: block at line %d: %s: %s [%s]", file, 1+strings.Count(text[:at[2]], "\n"), f.Pos, f.Message, f.ID)
				}
			}
		}
	}
	if blocks == 0 {
		t.Error("the documentation has no policies")
	}
}

func check(t *testing.T, name, text string) []lint.Finding {
	t.Helper()
	files := []model.File{{Name: name, Data: []byte(text)}}
	p, diagnostics := model.Parse(files)
	if diagnostics.HasErrors() {
		t.Fatalf("%v", diagnostics)
	}
	return lint.Check(p, files)
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestKindsAreDocumented looks for kinds of findings without a row on their page.
func TestKindsAreDocumented(t *testing.T) {
	page := read(t, "../docs/lint.md")
	for _, k := range lint.Kinds {
		if !strings.Contains(page, "| `"+k.ID+"` |") {
			t.Errorf("docs/lint.md has no row for %s", k.ID)
		}
	}
}
