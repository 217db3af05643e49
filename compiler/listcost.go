package compiler

import (
	"fmt"

	"github.com/sockns/sockns/nft"
)

// ListCost says of a list that became a set of the table what it costs as that,
// and what it would cost as rules, by the figures that the decision was made by.
type ListCost struct {
	Set      string `json:"set"`
	Elements int    `json:"elements"`
	Rules    int    `json:"rules"` // of the table that look into it
	First    string `json:"first"` // the words of the first of them, with the chain that it is in
	// Nanoseconds and KiB are those of a packet that passes the list, and of the
	// kernel's memory.
	Nanoseconds      int `json:"nanoseconds"`
	KiB              int `json:"kib"`
	RulesNanoseconds int `json:"rulesNanoseconds"`
	RulesKiB         int `json:"rulesKiB"`
}

// String returns a line for a person.
func (l ListCost) String() string {
	return fmt.Sprintf("%s: %d elements, asked by %d rules (%s): %d ns and %d KiB, as rules %d ns and %d KiB",
		l.Set, l.Elements, l.Rules, l.First, l.Nanoseconds, l.KiB, l.RulesNanoseconds, l.RulesKiB)
}

// Lists returns the costs of the lists of a device namespace that became sets, in
// the order of the table.
func (d *Device) Lists() []ListCost {
	if d.Table == nil {
		return nil
	}
	lists := []ListCost{}
	place := make(map[string]int)
	for i := range d.Table.Sets {
		s := &d.Table.Sets[i]
		if !isListSet(s.Name) {
			continue
		}
		n := len(s.Elements)
		as, rules := priceOfHash(n, costLookup), priceOfRules(n)
		switch {
		case s.Interval:
			as = priceOfIntervals(n)
		case len(s.Key) > 1:
			as = priceOfHash(n, costConcat)
		}
		place[s.Name] = len(lists)
		lists = append(lists, ListCost{
			Set: s.Name, Elements: n,
			Nanoseconds: as.ns, KiB: (as.bytes + 1023) >> 10, RulesNanoseconds: rules.ns, RulesKiB: (rules.bytes + 1023) >> 10,
		})
	}
	for i := range d.Table.Chains {
		c := &d.Table.Chains[i]
		for j := range c.Rules {
			r := &c.Rules[j]
			for _, s := range r.Statements {
				m, ok := s.(nft.MatchSet)
				if !ok {
					continue
				}
				if at, is := place[m.Set]; is {
					l := &lists[at]
					if l.Rules++; l.Rules == 1 {
						l.First = c.Name
						if r.Comment != "" {
							l.First += ", " + r.Comment
						}
					}
				}
			}
		}
	}
	return lists
}
