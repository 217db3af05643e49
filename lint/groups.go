package lint

import (
	"fmt"

	"github.com/sockns/sockns/model"
)

// groups finds groups that no rule names: a misspelt name elsewhere, or a rule
// that was forgotten.
func (c *checker) groups() {
	used := make(map[string]bool)
	for i := range c.policy.SocketNamespaces {
		n := &c.policy.SocketNamespaces[i]
		for _, h := range model.Hooks {
			for _, r := range n.Rules(h) {
				for _, list := range [...][]model.Peer{r.Local, r.Peers} {
					for _, p := range list {
						used[p.Name] = true
					}
				}
			}
		}
	}
	for _, g := range c.policy.Groups {
		if !used[g.Name] {
			c.add(Finding{ID: UnusedGroup, Pos: g.Pos, Message: fmt.Sprintf("group %s is not used", g.Name), Remedy: "name it in a rule, or remove it"})
		}
	}
}
