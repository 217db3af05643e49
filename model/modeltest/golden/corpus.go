package golden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// Policies returns the YAML files that the patterns find, alone and in
// archives, by their names.
func Policies(t testing.TB, patterns ...string) map[string][]byte {
	t.Helper()
	policies := make(map[string][]byte)
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(path, ".txtar") {
				policies[path] = data
				continue
			}
			for _, f := range txtar.Parse(data).Files {
				if strings.HasSuffix(f.Name, ".yaml") {
					policies[path+" "+f.Name] = f.Data
				}
			}
		}
	}
	return policies
}
