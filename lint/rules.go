package lint

import (
	"fmt"
	"slices"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/model"
)

// rules looks at each rule of a hook of a namespace.
func (c *checker) rules(n *model.SocketNamespace, h model.Hook) {
	rules := n.Rules(h)
	if len(rules) == 0 {
		return
	}
	l := c.lists.Of(n, h)
	uses := l.Uses()
	if !l.Exact() {
		c.add(Finding{
			ID: TooManyPieces, Pos: rules[0].Pos, Namespace: n.Name,
			Message: fmt.Sprintf("the %d rules of %s of %s cut the flows into so many pieces that nothing can be said of them", len(rules), h, n.Name),
			Remedy:  "use fewer different ranges of ports and addresses, groups, or more than one namespace",
		})
		return
	}
	for i := range rules {
		r, use := &rules[i], uses[i]
		dead := c.entries(n, l, r, use.Speaks)
		switch {
		case !use.Speaks && dead: // which says it better
		case !use.Decides:
			c.undecided(n, r, use)
		case use.Superfluous:
			c.addRule(n, r, RedundantRule,
				fmt.Sprintf("changes nothing: without it the same follows from %s", and(c.deciding(n, h, use.By))), "remove it", use.By)
		default:
			c.ends(n, r)
		}
	}
}

// addRule adds a finding about a rule, and the places of those that decide.
func (c *checker) addRule(n *model.SocketNamespace, r *model.Rule, id, message, remedy string, by []flowset.Deciding) {
	f := Finding{
		ID: id, Pos: r.Pos, Namespace: n.Name, Rule: r.Words(), Remedy: remedy,
		Message: fmt.Sprintf("rule %d of %s of %s %s", r.Index, r.Hook, n.Name, message),
	}
	for _, d := range by {
		if d.By == flowset.Rule {
			other := &n.Rules(r.Hook)[d.Rule-1]
			f.Related = append(f.Related, Related{other.Pos, fmt.Sprintf("rule %d: %s", other.Index, other.Words())})
		}
	}
	c.add(f)
}

// undecided tells of a rule that no flow reaches.
func (c *checker) undecided(n *model.SocketNamespace, r *model.Rule, use flowset.Use) {
	remedy := "remove it"
	switch use.Effect {
	case flowset.DeniesRest:
		remedy = "say default: {bind: deny} in its place, which is all that it does"
	case flowset.ClaimsPorts:
		remedy = "remove it, but without it others get EACCES at its ports, and not EADDRINUSE"
	}
	if len(use.By) == 0 {
		c.addRule(n, r, UnmatchableRule, "can never match: no flow is as it says", remedy, nil)
		return
	}
	if !slices.ContainsFunc(use.By, func(d flowset.Deciding) bool { return d.By == flowset.Rule }) {
		c.addRule(n, r, UnmatchableRule, "can never match: "+unasked(r, use.By[0].By), remedy, nil)
		return
	}
	if use.Effect == flowset.NoEffect {
		remedy = "remove it, or put it before them"
		if len(use.By) == 1 {
			remedy = "remove it, or put it before that one"
		}
	}
	verb := "decide"
	if len(use.By) == 1 {
		verb = "decides"
	}
	c.addRule(n, r, ShadowedRule, fmt.Sprintf("can never match: %s %s all its flows before it", and(c.deciding(n, r.Hook, use.By)), verb), remedy, use.By)
}

// unasked says why a rule is not asked.
func unasked(r *model.Rule, by flowset.Decider) string {
	if by == flowset.HiddenSocket {
		return "the kernel does not show the receiving socket of its protocols, accept is asked of tcp and udp alone"
	}
	return "a bind to a port that the kernel picks, on an address of the namespace, needs no rule"
}

// deciding names what decides, with the places of rules.
func (c *checker) deciding(n *model.SocketNamespace, h model.Hook, by []flowset.Deciding) []string {
	const most = 4
	var words []string
	for i, d := range by {
		if i == most {
			return append(words, fmt.Sprintf("%d more", len(by)-most))
		}
		switch d.By {
		case flowset.Rule:
			words = append(words, fmt.Sprintf("rule %d at %s", d.Rule, n.Rules(h)[d.Rule-1].Pos))
		case flowset.Default:
			words = append(words, "the default")
		case flowset.SameNamespace:
			words = append(words, "that a namespace reaches itself")
		case flowset.PickedPort:
			words = append(words, "that the kernel's choice of a port needs no rule")
		case flowset.OtherAddress:
			words = append(words, "that an address of others can't be bound")
		case flowset.HiddenSocket:
			words = append(words, "that accept is asked of tcp and udp alone")
		}
	}
	return words
}
