package syscalls

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sockns/sockns/e2e/roottest"
)

// TestVariants: the kernel's verifier takes all programs of both variants.
func TestVariants(t *testing.T) {
	roottest.Need(t)
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
