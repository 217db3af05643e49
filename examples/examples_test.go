package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
)

// TestExamples parses and compiles each example.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d examples: %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, diags := model.Parse([]model.File{{Name: file, Data: data}})
		if diags.HasErrors() {
			t.Errorf("%v", diags)
			continue
		}
		prog := compiler.Compile(p, compiler.Facts{Devices: map[string]compiler.DeviceFacts{model.HostDevice: {}}})
		if len(prog.Devices) != 1 || prog.Devices[0].Table == nil {
			t.Errorf("%s compiles to nothing", file)
		}
	}
}
