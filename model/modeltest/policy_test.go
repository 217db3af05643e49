package modeltest_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model/modeltest"
)

func TestDrawnPoliciesHaveNoErrors(t *testing.T) {
	edges := modeltest.Usual
	edges.Long = true
	edges.Ports = []uint16{1, 80, 81, 65535}
	edges.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("2001:db8::1")}
	rapid.Check(t, func(t *rapid.T) {
		text := modeltest.YAML(rapid.SampledFrom([]modeltest.Options{modeltest.Usual, edges}).Draw(t, "options")).Draw(t, "policy")
		modeltest.Flow(modeltest.Parse(t, text)).Draw(t, "flow")
	})
}
