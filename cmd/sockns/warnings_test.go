package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockns/sockns/controller"
)

func TestWarningsAreFew(t *testing.T) {
	for _, c := range []struct {
		rules, warnings int
		note            string
	}{
		{21, 20, ""},
		{22, 20, "1 more warning: sockns lint has all"},
		{26, 20, "5 more warnings: sockns lint has all"},
		{mostLinted + 1, 0, "10001 rules are too many to look here for what is said in vain: sockns lint does"},
	} {
		// All rules but one are shadowed.
		text := "socketNamespaces:\n  a:\n    members: [{cgroup: /system.slice}]\n    connect:\n" +
			strings.Repeat("      - {action: deny}\n", c.rules)
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(path, []byte(fmt.Sprintln("apiVersion: sockns/v1")+text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := controller.Load([]string{path})
		if err != nil || loaded.Policy == nil {
			t.Fatalf("%v %v", err, loaded.Diagnostics)
		}
		list, note := warnings(loaded)
		if len(list) != c.warnings || note != c.note {
			t.Errorf("%d rules: %d warnings, note %q; want %d, %q", c.rules, len(list), note, c.warnings, c.note)
		}
	}
}
