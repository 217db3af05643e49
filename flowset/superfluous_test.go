package flowset

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// drawEnforced draws a policy in which no namespace is in audit, with rules
// repeated and exchanged.
func drawEnforced(t *rapid.T) *model.Policy {
	text := modeltest.YAML(modeltest.Usual).Draw(t, "policy")
	p := modeltest.Parse(t, modeltest.Edited(text).Draw(t, "edited"))
	for i := range p.SocketNamespaces {
		p.SocketNamespaces[i].Mode = model.Enforce
	}
	return p
}

// without returns a policy without those rules of a hook whose use says so.
func without(p *model.Policy, n *model.SocketNamespace, h model.Hook, gone func(i int) bool) *model.Policy {
	var rules []model.Rule
	for i, r := range n.Rules(h) {
		if !gone(i) {
			rules = append(rules, r)
		}
	}
	return modeltest.WithRules(p, n.Name, h, rules)
}

func removable(u Use) bool { return (!u.Decides || u.Superfluous) && u.Effect == NoEffect }

// TestRulesThatCanBeRemoved removes rules that are said to be superfluous, and
// others, and compares what the policies mean.
func TestRulesThatCanBeRemoved(t *testing.T) {
	counts := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		p := drawEnforced(t)
		logged := rapid.IntRange(0, 3).Draw(t, "logged") == 0
		for i := range p.SocketNamespaces {
			for _, h := range model.Hooks {
				rules := p.SocketNamespaces[i].Rules(h)
				for j := range rules {
					rules[j].Log = rules[j].Log && logged
				}
			}
		}
		lists := NewLists(p)
		n := &p.SocketNamespaces[rapid.IntRange(0, len(p.SocketNamespaces)-1).Draw(t, "namespace")]
		for _, h := range model.Hooks {
			uses := lists.Of(n, h).Uses()
			gone := func(i int) bool { return removable(uses[i]) }
			if c := Compare(p, without(p, n, h, gone)); len(c) > 0 {
				t.Fatalf("%s %s without what %+v says: %v", n.Name, h, uses, c)
			}
			for i, r := range n.Rules(h) {
				if gone(i) {
					counts["removable"]++
					if c := Compare(p, without(p, n, h, func(j int) bool { return i == j })); len(c) > 0 {
						t.Fatalf("%s %s without rule %d alone: %v", n.Name, h, i+1, c)
					}
					continue
				}
				if r.Audit || logged {
					continue
				}
				counts["needed"]++
				alone := Compare(p, without(p, n, h, func(j int) bool { return i == j }))
				if len(alone) == 0 && len(Compare(p, without(p, n, h, func(j int) bool { return i == j || gone(j) }))) == 0 {
					t.Fatalf("%s %s (%+v): rule %d can be removed too", n.Name, h, uses, i+1)
				}
				if uses[i].Decides != (uses[i].Effect == NoEffect) {
					t.Fatalf("%s %s rule %d: %+v", n.Name, h, i+1, uses[i])
				}
			}
		}
	})
	t.Logf("%v", counts)
	if counts["removable"] == 0 || counts["needed"] == 0 {
		t.Error("nothing was removed")
	}
}

// TestRulesThatDecide changes what rules answer, which changes something if,
// and only if, they are said to decide.
func TestRulesThatDecide(t *testing.T) {
	counts := make(map[bool]int)
	rapid.Check(t, func(t *rapid.T) {
		p := drawEnforced(t)
		lists := NewLists(p)
		n := &p.SocketNamespaces[rapid.IntRange(0, len(p.SocketNamespaces)-1).Draw(t, "namespace")]
		for _, h := range model.Hooks {
			for i, use := range lists.Of(n, h).Uses() {
				r := n.Rules(h)[i]
				if claimsPort(&r, model.TCP) || claimsPort(&r, model.UDP) {
					continue // what others get changes too
				}
				rules := slices.Clone(n.Rules(h))
				rules[i].Audit, rules[i].Action, rules[i].Error = false, model.Deny, model.EACCES
				a := modeltest.WithRules(p, n.Name, h, rules)
				rules[i].Error = map[model.Hook]model.Errno{model.Bind: model.EPERM, model.Connect: model.ETIMEDOUT, model.Accept: model.ETIMEDOUT}[h]
				changes := Compare(a, modeltest.WithRules(p, n.Name, h, rules))
				if use.Decides != (len(changes) > 0) {
					t.Fatalf("%s %s rule %d: %+v, and another answer changes %v", n.Name, h, i+1, use, changes)
				}
				counts[use.Decides]++
			}
		}
	})
	t.Logf("%v", counts)
	if counts[true] == 0 || counts[false] == 0 {
		t.Error("nothing was changed")
	}
}
