package modeltest_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

func TestDrawnPoliciesHaveNoErrors(t *testing.T) {
	gen := modeltest.YAML(modeltest.Options{
		Cgroups: []string{"/a", "/a/b", "/c", "/d"}, Pattern: "/user.slice/user-*.slice", Devices: []string{"/run/netns/blue"},
	})
	rapid.Check(t, func(t *rapid.T) {
		text := gen.Draw(t, "policy")
		if _, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}}); diagnostics.HasErrors() {
			t.Fatalf("%v\n%s", diagnostics, text)
		}
	})
}
