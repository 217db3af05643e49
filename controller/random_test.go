package controller

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/source"
)

// TestPlanAfterApply holds that nothing is left to do after an apply, reading
// back from the kernel: for each example and for random policies, each applied
// over the one before it. -rapid.checks says how many. What show prints of
// them is accepted by nft(8).
func TestPlanAfterApply(t *testing.T) {
	base := makeCgroups(t, "a", "a/b", "c", "users/user-1", "users/user-2", "users/other")
	gen := modeltest.YAML(modeltest.Options{
		Cgroups: []string{base + "/a", base + "/a/b", base + "/c", base + "/absent"},
		Pattern: base + "/users/user-*",
		Long:    true,
	})
	inNetns(t, func(t *testing.T, h *Host) {
		paths, err := filepath.Glob("../examples/*.yaml")
		if err != nil || len(paths) == 0 {
			t.Fatalf("no examples: %v", err)
		}
		for _, path := range paths {
			files, err := source.Files([]string{path})
			if err != nil {
				t.Error(err)
				return
			}
			p, diagnostics := model.Parse(files)
			if diagnostics.HasErrors() {
				t.Error(diagnostics)
				return
			}
			apply(fatal{t}, h, p)
		}
		rapid.Check(t, func(t *rapid.T) {
			p := mustParse(t, gen.Draw(t, "policy"))
			apply(t, h, p)
			nftAccepts(t, h, p)
		})
	})
}

// nftAccepts holds that nft(8) takes the text of a policy's tables.
func nftAccepts(t *rapid.T, h *Host, p *model.Policy) {
	prog, err := h.Compile(p)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	opts := h.TextOptions()
	for _, d := range prog.Devices {
		if d.Table == nil {
			continue
		}
		text := d.Table.Text(opts)
		cmd := exec.Command("nft", "-c", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("nft -c: %v\n%s\n%s", err, out.String(), text)
		}
	}
}

// fatal ends a test from a goroutine that is not its own.
type fatal struct{ *testing.T }

func (f fatal) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic("stop")
}
