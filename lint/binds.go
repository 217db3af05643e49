package lint

import (
	"fmt"
	"strings"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/model"
)

// binds finds namespaces that may bind what an earlier one may bind.
func (c *checker) binds() {
	for _, x := range c.lists.Ambiguous() {
		first, second := &x.First.Bind[x.FirstRule-1], &x.Second.Bind[x.SecondRule-1]
		c.add(Finding{
			ID: AmbiguousBind, Pos: second.Pos, Namespace: x.Second.Name, Rule: second.Words(),
			Message: fmt.Sprintf("ambiguous: %s may bind %s by this rule, and so may %s by rule %d at %s; %s is asked first (the order of the files)",
				x.Second.Name, places(x), x.First.Name, first.Index, first.Pos, x.First.Name),
			Remedy:  "give them addresses of their own, or take the port from one",
			Related: []Related{{first.Pos, fmt.Sprintf("rule %d of bind of %s: %s", first.Index, x.First.Name, first.Words())}},
		})
	}
}

// places says what both may bind.
func places(x flowset.Ambiguity) string {
	protocols := x.Protocols
	if len(protocols) == len(model.Protocols)-1 { // all that have ports
		protocols = nil
	}
	what := model.TrafficWords(protocols, x.Ports)
	if len(x.Addresses) == 0 {
		return what
	}
	const most = 3
	var words []string
	for _, a := range x.Addresses[:min(most, len(x.Addresses))] {
		words = append(words, a.String())
	}
	if more := len(x.Addresses) - most; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return what + " on " + strings.Join(words, ", ")
}
