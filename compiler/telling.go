package compiler

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// Telling is one kind of decision about packets that a table counts and logs.
type Telling struct {
	// Namespace is that of the rule; of those that share their rules the first
	// by name. It is empty for the refusals of accepting ends, which all
	// namespaces count together: what the connecting end refuses, which is told
	// in its stead, was counted by the accepting end's rule too.
	Namespace string
	Hook      model.Hook
	Rule      int // from 1; 0: the default
	Outcome   Outcome
	Errno     model.Errno // of the refusals of accepting ends alone
}

// Tellings is what a table has counted of all that it logs. What counts
// nothing is not in it.
type Tellings struct {
	Counted map[Telling]Figure
	// Accepting has what rules of accepting ends refused, by namespace, the
	// connecting ends' own refusals included.
	Accepting map[Telling]uint64
}

// Figure is a count, and the name of the rule that it is of.
type Figure struct {
	Name  string
	Count uint64
}

// CountingSet reports whether a set says whose the counters of a table are: all
// that [TellingsOf], [FiguresOf] and the counts of [Describe] need of its sets
// ([nft.Conn.Counts]).
func CountingSet(name string) bool { return name == namespacesMap }

// TellingsOf reads what a table has counted. Rules that allow are among them,
// whether they log or not. A nil table has none.
func TellingsOf(t *nft.Table) *Tellings {
	all := &Tellings{Counted: make(map[Telling]Figure), Accepting: make(map[Telling]uint64)}
	if t == nil {
		return all
	}
	mine := owners(t)
	for i := range t.Chains {
		c := &t.Chains[i]
		if prefix, ok := logOf(c); ok {
			k := Telling{Hook: prefix.Hook, Rule: prefix.Rule, Outcome: Refused, Errno: prefix.Errno}
			if n := countOf(c); n > 0 {
				all.Counted[k] = Figure{Count: all.Counted[k].Count + n}
			}
			continue
		}
		policy, _ := policyOf(c.Name)
		owner, ok := mine[policy]
		if !ok {
			continue
		}
		part, _, _ := strings.Cut(c.Name[len(policy)+1:], ".")
		for j := range c.Rules {
			r := &c.Rules[j]
			if r.Comment == "" || packetsOf(r) == 0 {
				continue
			}
			n := counted(r)
			k := Telling{Namespace: owner.first, Hook: hookOf(n.Hook), Outcome: n.Outcome}
			k.Rule, _ = strconv.Atoi(n.Number)
			if part == partAccept && n.Outcome == Refused {
				all.Accepting[k] += n.Packets
				continue
			}
			all.Counted[k] = Figure{Name: n.Name, Count: all.Counted[k].Count + n.Packets}
		}
	}
	return all
}

// CountedIn returns the namespaces of which something is counted in one of some
// tables, by the names that [Telling] has.
func CountedIn(tables ...*nft.Table) map[string]bool {
	names := make(map[string]bool)
	for _, t := range tables {
		for _, o := range owners(t) {
			names[o.first] = true
		}
	}
	return names
}

// logOf returns the prefix of a chain that tells of refusals of accepting ends.
func logOf(c *nft.Chain) (Prefix, bool) {
	if !strings.HasPrefix(c.Name, refusePrefix+string(EndTo)+".") {
		return Prefix{}, false
	}
	for _, r := range c.Rules {
		for _, s := range r.Statements {
			if l, ok := s.(nft.Log); ok {
				p, err := ParsePrefix(l.Prefix)
				return p, err == nil
			}
		}
	}
	return Prefix{}, false
}

func countOf(c *nft.Chain) uint64 {
	var n uint64
	for i := range c.Rules {
		n += packetsOf(&c.Rules[i])
	}
	return n
}

func hookOf(name string) model.Hook {
	return model.Hook(slices.IndexFunc(model.Hooks[:], func(h model.Hook) bool { return h.String() == name }))
}
