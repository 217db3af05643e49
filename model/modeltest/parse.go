package modeltest

import (
	"github.com/sockns/sockns/model"
)

// Parse reads a drawn policy.
func Parse(t interface{ Fatalf(string, ...any) }, text string) *model.Policy {
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}})
	if diagnostics.HasErrors() {
		t.Fatalf("%v\n%s", diagnostics, text)
	}
	return p
}

// Usual are the options of a policy that names everything there is to name.
var Usual = Options{
	Cgroups: []string{"/a", "/a/b", "/c", "/d"}, Pattern: "/user.slice/user-*.slice", Devices: []string{"/run/netns/blue"},
}
