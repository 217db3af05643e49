// Package roottest skips tests that can't run here, or fails them where it is
// promised that they can: CI sets SOCKNS_REQUIRE_ROOT, so that none is skipped
// in silence.
package roottest

import (
	"os"
	"testing"
)

const required = "SOCKNS_REQUIRE_ROOT"

// Need is for tests of the kernel: network namespaces, cgroups, nftables and
// BPF programs are root's.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Miss(t, "root")
	}
}

// Miss ends a test for which something is missing.
func Miss(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(required) != "" {
		t.Fatalf("%s is set, and the test needs %s", required, what)
	}
	t.Skipf("SKIPPED, NOT TESTED: needs %s", what)
}
