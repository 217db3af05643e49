package compiler

import (
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// kept is what a compilation leaves for the next one: [Program.Change]. It has no
// rules: those of policies that change are made again, or read from the kernel.
// Nobody modifies it.
type kept struct {
	policy  *model.Policy
	facts   Facts
	passes  func([]*space) Passes
	devices map[string]*keptDevice // those that have socket namespaces
}

// keptDevice is what is kept of a device namespace.
type keptDevice struct {
	resolver *resolver
	spaces   []*space
	policies map[string]*chains // without rules, by namespace or template
	index    *Index
	by       map[string]*model.SocketNamespace // the first that has it, by the name of a policy
}

// Kept returns what [Program.Change] needs of a program, which is little: tables
// are not in it.
func (prog *Program) Kept() *Program { return &Program{kept: prog.kept} }

// brief returns a policy without its rules.
func (c *chains) brief() *chains {
	b := *c
	b.list = nil
	return &b
}

// sets notes which sets the rules ask.
func (c *chains) sets() {
	seen := make(map[string]bool)
	for _, chain := range c.list {
		for i := range chain.Rules {
			for _, s := range chain.Rules[i].Statements {
				if m, ok := s.(nft.MatchSet); ok && !seen[m.Set] {
					seen[m.Set] = true
					c.asks = append(c.asks, m)
				}
			}
		}
	}
}

func keep(r *resolver, spaces []*space, policies map[string]*chains, index *Index) *keptDevice {
	k := &keptDevice{resolver: r, spaces: spaces, index: index, policies: make(map[string]*chains, len(policies)), by: firstsOf(spaces, policies)}
	briefs := make(map[*chains]*chains)
	for name, c := range policies {
		b := c
		if c.list != nil {
			if b = briefs[c]; b == nil {
				b = c.brief()
				briefs[c] = b
			}
		}
		k.policies[name] = b
	}
	return k
}

// firstsOf returns the first namespace of those that have a policy, by its name.
func firstsOf(spaces []*space, policies map[string]*chains) map[string]*model.SocketNamespace {
	by := make(map[string]*model.SocketNamespace)
	for _, s := range spaces {
		if name := policies[s.source.Name].name; by[name] == nil {
			by[name] = s.source
		}
	}
	return by
}
