package modeltest_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

func TestDrawnPoliciesHaveNoErrors(t *testing.T) {
	wide := modeltest.Options{
		Cgroups: []string{"/a", "/a/b", "/c", "/d"}, Pattern: "/user.slice/user-*.slice", Devices: []string{"/run/netns/blue"},
	}
	edges := wide
	edges.Ports = []uint16{1, 80, 81, 65535}
	edges.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("2001:db8::1")}
	rapid.Check(t, func(t *rapid.T) {
		text := modeltest.YAML(rapid.SampledFrom([]modeltest.Options{wide, edges}).Draw(t, "options")).Draw(t, "policy")
		if _, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}}); diagnostics.HasErrors() {
			t.Fatalf("%v\n%s", diagnostics, text)
		}
	})
}
