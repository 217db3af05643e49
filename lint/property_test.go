package lint_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// TestRemovedRules removes each rule of drawn policies. One that is said never
// to match or to change nothing leaves all decisions as they are, unless the
// remedy says what else it does; one of which nothing is said does not, if those
// that no flow matches, of which another thing is said, go with it.
func TestRemovedRules(t *testing.T) {
	same, other := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		text := modeltest.Edited(modeltest.YAML(modeltest.Usual).Draw(t, "policy")).Draw(t, "edited")
		text = strings.NewReplacer("mode: audit", "mode: enforce", "log: true", "log: false").Replace(text)
		p := modeltest.Parse(t, text)
		said := make(map[model.Position]string) // by the places of rules
		unmet := make(map[int]bool)             // lines of rules that name what can't be met, which is said of the name
		for _, f := range lint.Check(p, nil) {
			switch f.ID {
			case lint.ShadowedRule, lint.UnmatchableRule, lint.RedundantRule:
				said[f.Pos] = f.Remedy
			case lint.UnreachablePeer, lint.UnreachableLocal:
				unmet[f.Pos.Line] = true
			}
		}
		lists := flowset.NewLists(p)
		for i := range p.SocketNamespaces {
			for _, h := range model.Hooks {
				rules := p.SocketNamespaces[i].Rules(h)
				reported := slices.ContainsFunc(rules, func(r model.Rule) bool { return said[r.Pos] != "" })
				for j, r := range rules {
					changes := flowset.Compare(p, modeltest.WithRules(p, p.SocketNamespaces[i].Name, h, slices.Delete(slices.Clone(rules), j, j+1)))
					switch remedy := said[r.Pos]; {
					case strings.HasPrefix(remedy, "remove it") && !strings.Contains(remedy, "EADDRINUSE"):
						same++
						if len(changes) > 0 {
							t.Fatalf("%s: %s, but %v", r.Pos, remedy, changes)
						}
					case remedy == "" && !r.Audit && !reported && !unmet[r.Pos.Line]:
						other++
						if len(changes) == 0 {
							list := lists.Of(&p.SocketNamespaces[i], h)
							rest := slices.Delete(slices.Clone(rules), j, j+1)
							rest = slices.DeleteFunc(rest, func(r model.Rule) bool { return !list.Speaks(&r) })
							changes = flowset.Compare(p, modeltest.WithRules(p, p.SocketNamespaces[i].Name, h, rest))
						}
						if len(changes) == 0 {
							t.Fatalf("%s: nothing is said of %q, which changes nothing", r.Pos, r.Words())
						}
					}
				}
			}
		}
	})
	t.Logf("%d rules can go, %d can't", same, other)
	if same == 0 || other == 0 {
		t.Error("nothing was removed")
	}
}
