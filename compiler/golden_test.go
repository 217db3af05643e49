package compiler

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compiles the policy of each archive in testdata and compares the
// tables and notes with those of the archive. facts.json says what the host has.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := make(map[string][]byte)
			var kept []txtar.File
			for _, f := range archive.Files {
				in[f.Name] = f.Data
				if !strings.HasSuffix(f.Name, ".nft") && f.Name != "notes" {
					kept = append(kept, f)
				}
			}
			prog := Compile(parse(t, in["policy.yaml"]), factsOf(t, in["facts.json"]))
			for _, d := range prog.Devices {
				if d.Table != nil {
					kept = append(kept, txtar.File{Name: d.Name + ".nft", Data: []byte(d.Table.String())})
				}
			}
			if len(prog.Notes) > 0 {
				var b strings.Builder
				for _, n := range prog.Notes {
					fmt.Fprintf(&b, "%s: %s: %s\n", n.Pos, n.Namespace, n.Text)
				}
				kept = append(kept, txtar.File{Name: "notes", Data: []byte(b.String())})
			}
			got := txtar.Format(&txtar.Archive{Comment: archive.Comment, Files: kept})
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(txtar.Format(archive)); want != string(got) {
				t.Errorf("compiled differently; run with -update and read the change\ngot:\n%s", got)
			}
		})
	}
}

func parse(t testing.TB, yaml []byte) *model.Policy {
	t.Helper()
	p, diags := model.Parse([]model.File{{Name: "policy.yaml", Data: yaml}})
	for _, d := range diags {
		if d.Severity == model.Error {
			t.Fatal(d)
		}
	}
	return p
}

// factsOf reads facts; the host exists in any case.
func factsOf(t testing.TB, data []byte) Facts {
	t.Helper()
	f := Facts{}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &f); err != nil {
			t.Fatal(err)
		}
	}
	if f.Devices == nil {
		f.Devices = map[string]DeviceFacts{model.HostDevice: {}}
	}
	return f
}
