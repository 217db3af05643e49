package compiler

import (
	"encoding/binary"
	"maps"
	"slices"

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

// clip gives the rules the memory that they need: chains are many and short.
func (c *chains) clip() {
	count := 0
	for _, chain := range c.list {
		count += len(chain.Rules)
	}
	c.parts = make([]string, 0, len(c.list))
	room := make([]nft.Rule, 0, count)
	for _, chain := range c.list {
		c.parts = append(c.parts, chain.Name)
		begin := len(room)
		room = append(room, chain.Rules...)
		chain.Rules = room[begin:len(room):len(room)]
	}
}

// distinct returns each of the policies once.
func distinct(policies map[string]*chains) map[*chains]bool {
	all := make(map[*chains]bool)
	for _, c := range policies {
		all[c] = true
	}
	return all
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

// keep keeps what policies are, whose map is not used otherwise from here on.
func keep(r *resolver, spaces []*space, policies map[string]*chains, by map[string]*model.SocketNamespace, index *Index) *keptDevice {
	briefs := make(map[*chains]*chains)
	same := common{endings: make(map[string]map[ending]bool), parts: make(map[string][]string)}
	for name, c := range policies {
		if c.list == nil {
			continue
		}
		b := briefs[c]
		if b == nil {
			b = c.brief()
			same.share(b)
			briefs[c] = b
		}
		policies[name] = b
	}
	return &keptDevice{resolver: r, spaces: spaces, index: index, policies: policies, by: by}
}

// common has each of what policies mostly have alike once.
type common struct {
	endings map[string]map[ending]bool
	parts   map[string][]string
	key     []byte
}

// share has a policy hold what others hold too in the same memory.
func (s *common) share(c *chains) {
	list := slices.SortedFunc(maps.Keys(c.endings), compareEndings)
	key := s.key[:0]
	for _, e := range list {
		key = append(key, byte(e.hook))
		key = binary.AppendUvarint(key, uint64(e.rule))
		key = appendText(appendText(key, string(e.end)), string(e.errno))
	}
	if known, ok := s.endings[string(key)]; ok {
		c.endings = known
	} else {
		s.endings[string(key)] = c.endings
	}
	key = key[:0]
	for _, part := range c.parts {
		key = appendText(key, part)
	}
	if known, ok := s.parts[string(key)]; ok {
		c.parts = known
	} else {
		s.parts[string(key)] = c.parts
	}
	s.key = key
}

// firstsOf returns the first namespace of those that have a policy, by its name.
func firstsOf(spaces []*space, policies map[string]*chains) map[string]*model.SocketNamespace {
	by := make(map[string]*model.SocketNamespace)
	seen := make(map[*chains]bool)
	for _, s := range spaces {
		c := policies[s.source.Name]
		if seen[c] {
			continue
		}
		if seen[c] = true; by[c.name] == nil {
			by[c.name] = s.source
		}
	}
	return by
}
