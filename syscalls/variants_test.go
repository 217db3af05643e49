package syscalls

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

// TestVariants: the kernel's verifier takes all programs of both variants.
func TestVariants(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("SOCKNS_REQUIRE_ROOT") != "" {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root, to load programs")
	}
	for _, variant := range []Variant{Cast, Stamp} {
		s, err := spec(variant)
		if err != nil {
			t.Fatal(err)
		}
		coll, err := ebpf.NewCollection(s)
		if err != nil {
			var refused *ebpf.VerifierError
			if errors.As(err, &refused) {
				t.Logf("%+v", refused)
			}
			t.Fatalf("%s: %v", variant, err)
		}
		coll.Close()
	}
}
