package modeltest

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// WithRules returns a policy with other rules in a hook of a namespace.
func WithRules(p *model.Policy, name string, h model.Hook, rules []model.Rule) *model.Policy {
	after := *p
	after.SocketNamespaces = slices.Clone(p.SocketNamespaces)
	n := after.Namespace(name)
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Index = i + 1
	}
	switch h {
	case model.Bind:
		n.Bind = rules
	case model.Connect:
		n.Connect = rules
	default:
		n.Accept = rules
	}
	return &after
}
