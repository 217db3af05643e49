package compiler

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest/golden"
)

// TestGolden compiles the policy of each archive in testdata and compares the
// tables and notes with those of the archive. facts.json says what the host has.
func TestGolden(t *testing.T) {
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, a *txtar.Archive) []txtar.File {
		in := make(map[string][]byte)
		var got []txtar.File
		for _, f := range a.Files {
			in[f.Name] = f.Data
			if !strings.HasSuffix(f.Name, ".nft") && f.Name != "notes" {
				got = append(got, f)
			}
		}
		prog := Compile(parse(t, in["policy.yaml"]), factsOf(t, in["facts.json"]))
		for _, d := range prog.Devices {
			if d.Table != nil {
				got = append(got, txtar.File{Name: d.Name + ".nft", Data: []byte(d.Table.String())})
			}
		}
		if len(prog.Notes) > 0 {
			var b strings.Builder
			for _, n := range prog.Notes {
				fmt.Fprintf(&b, "%s: %s: %s\n", n.Pos, n.Namespace, n.Text)
			}
			got = append(got, txtar.File{Name: "notes", Data: []byte(b.String())})
		}
		return got
	})
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
