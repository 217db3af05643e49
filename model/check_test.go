package model

import (
	"fmt"
	"strings"
	"testing"
)

// TestTemplatesAreCounted holds that a device namespace may have as many templates
// as packets can tell apart, and another one as many again.
func TestTemplatesAreCounted(t *testing.T) {
	policy := func(n int) string {
		var b strings.Builder
		b.WriteString("apiVersion: sockns/v1\ndeviceNamespaces: {blue: {path: /run/netns/blue}}\nsocketNamespaces:\n")
		for i := range n {
			fmt.Fprintf(&b, "  t%d: {each: /t/%d-*}\n  b%d: {each: /b/%d-*, deviceNamespace: blue}\n", i, i, i, i)
		}
		return b.String()
	}
	for _, n := range []int{MaxTemplates, MaxTemplates + 1} {
		_, d := Parse([]File{{Name: "policy.yaml", Data: []byte(policy(n))}})
		if d.HasErrors() != (n > MaxTemplates) {
			t.Errorf("%d templates: %v", n, d)
		}
	}
}
