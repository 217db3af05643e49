package compiler

import (
	"slices"
	"strings"

	"github.com/sockns/sockns/nft"
)

// Cost is what the packet that goes the longest way through some rules costs.
type Cost struct {
	Rules       int `json:"rules"`       // that are looked at
	Lookups     int `json:"lookups"`     // in sets and maps, those of the sockets' cgroups included
	Nanoseconds int `json:"nanoseconds"` // an estimate, see the figures below
}

func (c Cost) plus(o Cost) Cost {
	return Cost{c.Rules + o.Rules, c.Lookups + o.Lookups, c.Nanoseconds + o.Nanoseconds}
}

// NamespaceCost is what packets of one socket namespace or instance, without a
// mark of their own, cost at worst, by where its rules are asked. A packet over lo is asked about twice in
// input: at the accepting end's Accept and at the connecting end's Local.
type NamespaceCost struct {
	Name    string `json:"name"`
	Policy  string `json:"policy"`  // its chains, which others may share
	Connect Cost   `json:"connect"` // output, not through lo: from the hook to the end
	Local   Cost   `json:"local"`   // input from lo, as the connecting end
	Accept  Cost   `json:"accept"`  // input from lo, as the accepting end: from the hook to the question to the other end
}

// Costs returns the costs of the namespaces and instances of a device namespace,
// sorted by name. What a refusal costs is left out: it is rejected, and what is
// told of it is limited.
func (d *Device) Costs() []NamespaceCost {
	if d.Table == nil {
		return nil
	}
	p := pricer{chains: make(map[string]*nft.Chain), intervals: make(map[string]int), known: make(map[string]Cost)}
	for i := range d.Table.Sets {
		if s := &d.Table.Sets[i]; s.Interval {
			p.intervals[s.Name] = len(s.Elements)
		}
	}
	for i := range d.Table.Chains {
		p.chains[d.Table.Chains[i].Name] = &d.Table.Chains[i]
	}
	entry := func(chains ...string) (c Cost) {
		for _, name := range chains {
			c = c.plus(p.through(name))
		}
		return c
	}
	out, in := entry(chainOutput, chainLeave), entry(chainInput, chainNear+udpOnly.suffix())
	var list []NamespaceCost
	for name := range d.Index.ids {
		c := d.Index.policies[templateOf(name)]
		list = append(list, NamespaceCost{
			Name: name, Policy: c.name,
			Connect: out.plus(p.chain(c.chain(partConnect))),
			Local:   p.chain(c.chain(partLocal)),
			Accept:  in.plus(p.worst(c.accept(tcpOnly), c.accept(udpOnly))),
		})
	}
	slices.SortFunc(list, func(a, b NamespaceCost) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// pricer finds the dearest ways through chains.
type pricer struct {
	chains    map[string]*nft.Chain
	intervals map[string]int // of the sets of intervals
	known     map[string]Cost
}

// through is what all rules of a chain cost, whatever they lead to.
func (p *pricer) through(name string) (sum Cost) {
	for _, r := range p.chains[name].Rules {
		sum = sum.plus(p.rule(r))
	}
	return sum
}

// worst is the dearest of some chains.
func (p *pricer) worst(chains ...string) (worst Cost) {
	for _, name := range chains {
		if c := p.chain(name); c.Nanoseconds > worst.Nanoseconds {
			worst = c
		}
	}
	return worst
}

// chain is what the dearest way costs that begins in a chain.
func (p *pricer) chain(name string) Cost {
	if c, ok := p.known[name]; ok {
		return c
	}
	chain := p.chains[name]
	if chain == nil || strings.HasPrefix(name, "refuse.") {
		return Cost{}
	}
	var sum, worst Cost
	for _, r := range chain.Rules {
		sum = sum.plus(p.rule(r))
		var next Cost
		v, ok := r.Statements[len(r.Statements)-1].(nft.Verdict)
		if ok && v.Chain != "" && r.Statements[0] != nft.Statement(hasKept) {
			next = p.chain(v.Chain)
		}
		if way := sum.plus(next); way.Nanoseconds > worst.Nanoseconds {
			worst = way
		}
		if ok && v.Kind == nft.VerdictJump {
			sum = sum.plus(next) // and back
		}
		if ok && r.Statements[0] == nft.Statement(noMark) {
			break
		}
	}
	p.known[name] = worst
	return worst
}

// rule is what a rule costs that is carried out to its end.
func (p *pricer) rule(r nft.Rule) Cost {
	c := Cost{Rules: 1, Nanoseconds: costRule}
	lookup := func(key []nft.Field) {
		c.Lookups++
		c.Nanoseconds += costLookup
		if len(key) > 1 {
			c.Nanoseconds += costConcat - costLookup
		}
		if slices.ContainsFunc(key, func(f nft.Field) bool { return f.Kind == nft.FieldCgroup }) {
			c.Nanoseconds += costCgroup
		}
	}
	for _, s := range r.Statements {
		if s == nft.Statement(anyMark) || s == nft.Statement(hasKept) {
			c.Nanoseconds += costCompare
			break
		}
		switch s := s.(type) {
		case nft.MatchSet:
			if n, is := p.intervals[s.Set]; is {
				c.Lookups++
				c.Nanoseconds += costOfIntervals(n)
			} else {
				lookup(s.Key)
			}
		case nft.VMap:
			lookup(s.Key)
		case nft.SetPriorityMap:
			lookup(s.Key)
			c.Nanoseconds += costWrite
		case nft.SetMarkMap:
			lookup(s.Key)
			c.Nanoseconds += costWrite
		case nft.Update:
			c.Lookups++
			c.Nanoseconds += costUpdate
		case nft.Verdict, nft.Counter, nft.SetPriority, nft.SetMark, nft.SetMarkBits:
			c.Nanoseconds += costWrite
		default:
			c.Nanoseconds += costCompare
		}
	}
	return c
}
