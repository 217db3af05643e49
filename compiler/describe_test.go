package compiler

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCounted(t *testing.T) {
	for words, want := range map[string]Counted{
		"connect 1: may connect db tcp/5432":                     {Hook: "connect", Number: "1", Allowed: true},
		"connect 12: may not connect 10.0.0.1/32 (ETIMEDOUT)":    {Hook: "connect", Number: "12"},
		"accept default: deny ECONNREFUSED":                      {Hook: "accept", Number: "default"},
		"connect default: allow":                                 {Hook: "connect", Number: "default", Allowed: true},
		"bind default: own addresses only":                       {Hook: "bind", Number: "default"},
		"bind 1: may bind tcp/80":                                {Hook: "bind", Number: "1", Allowed: true},
		"bind default: nothing else, and own addresses only":     {Hook: "bind", Number: "default"},
		"accept 3: may accept from any udp/53, logged, in audit": {Hook: "accept", Number: "3", Allowed: true},
	} {
		want.Rule = words
		if diff := cmp.Diff(want, counted(words)); diff != "" {
			t.Errorf("%s: %s", words, diff)
		}
	}
}
