package compiler

import (
	"slices"
	"time"

	"github.com/sockns/sockns/nft"
)

// Figures is what the rules of a table have counted.
type Figures struct {
	packets    map[figure]uint64
	auditSince map[string]time.Time // by namespace
}

// figure is what is counted together: a rule keeps its name when others come
// and go around it, and what it refused is not what it would have refused.
type figure struct {
	namespace, hook, name string
	outcome               Outcome
}

// FiguresOf reads the figures of the namespaces that have their counters for
// themselves. A nil table has none.
func FiguresOf(t *nft.Table) *Figures {
	f := &Figures{packets: make(map[figure]uint64), auditSince: make(map[string]time.Time)}
	for _, d := range owned(t) {
		for _, c := range d.Counters {
			f.packets[figure{d.Name, c.Hook, c.Name, c.Outcome}] += c.Packets
		}
		if !d.AuditSince.IsZero() {
			f.auditSince[d.Name] = d.AuditSince
		}
	}
	return f
}

// owned returns the namespaces and templates that share their policy with
// nobody, by policy.
func owned(t *nft.Table) map[string]Described {
	all := make(map[string]Described)
	shared := make(map[string]bool)
	for _, d := range Describe(t) {
		if templateOf(d.Name) != d.Name {
			continue // counted under its template
		}
		_, twice := all[d.Policy]
		shared[d.Policy] = shared[d.Policy] || twice
		all[d.Policy] = d
	}
	for policy := range shared {
		if shared[policy] {
			delete(all, policy)
		}
	}
	return all
}

// auditComment begins the comment of a policy's first chain if something of
// the policy is in audit.
const auditComment = "in audit since "

// Carry has the counters of a new table begin where those of the old one, which
// it is to replace, are: rules that keep their name and outcome keep their
// count. Where was has more, as of a table that somebody removed since, that
// counts. What packets do between the reading of old and the switch is not
// counted. Namespaces that share their chains begin anew when their rules change.
func Carry(old, new *nft.Table, was *Figures, now time.Time) {
	if new == nil {
		return
	}
	have := FiguresOf(old)
	merge(have, was)
	kept := make(map[string]*nft.Chain)
	if old != nil {
		for i := range old.Chains {
			kept[old.Chains[i].Name] = &old.Chains[i]
		}
	}
	mine := owned(new)
	rest := make(map[figure]uint64) // what chains that stay do not have
	for _, d := range mine {
		for _, c := range d.Counters {
			f := figure{d.Name, c.Hook, c.Name, c.Outcome}
			rest[f] = have.packets[f]
		}
	}
	eachCounter := func(visit func(f figure, chain *nft.Chain, rule int)) {
		for i := range new.Chains {
			chain := &new.Chains[i]
			policy, ok := policyOf(chain.Name)
			if !ok {
				continue
			}
			for j := range chain.Rules {
				if r := &chain.Rules[j]; r.Comment != "" && counterOf(r) >= 0 {
					c := counted(r)
					visit(figure{mine[policy].Name, c.Hook, c.Name, c.Outcome}, chain, j)
				}
			}
		}
	}
	for i := range new.Chains {
		chain := &new.Chains[i]
		o := kept[chain.Name]
		for j := range chain.Rules {
			if counterOf(&chain.Rules[j]) < 0 {
				continue
			}
			packets := uint64(0)
			if o != nil && len(o.Rules) == len(chain.Rules) {
				packets = packetsOf(&o.Rules[j])
			}
			setCounter(chain, j, packets)
		}
	}
	eachCounter(func(f figure, chain *nft.Chain, rule int) {
		rest[f] -= min(rest[f], packetsOf(&chain.Rules[rule]))
	})
	eachCounter(func(f figure, chain *nft.Chain, rule int) {
		if o := kept[chain.Name]; rest[f] > 0 && (o == nil || len(o.Rules) != len(chain.Rules)) {
			setCounter(chain, rule, rest[f])
			rest[f] = 0
		}
	})
	for i := range new.Chains {
		chain := &new.Chains[i]
		policy, _ := policyOf(chain.Name)
		d, ok := mine[policy]
		if !ok || chain.Name != policy+"."+partConnect || !slices.ContainsFunc(d.Counters, func(c Counted) bool { return c.Outcome == Audited }) {
			continue
		}
		since := have.auditSince[d.Name]
		if since.IsZero() {
			since = now
		}
		chain.Comment = auditComment + since.UTC().Format(time.RFC3339)
	}
}

// merge adds what other figures have more of.
func merge(into, other *Figures) {
	if other == nil {
		return
	}
	for f, n := range other.packets {
		into.packets[f] = max(into.packets[f], n)
	}
	for name, t := range other.auditSince {
		if into.auditSince[name].IsZero() {
			into.auditSince[name] = t
		}
	}
}

// counterOf returns which statement of a rule is its counter, -1 if none is.
func counterOf(r *nft.Rule) int {
	return slices.IndexFunc(r.Statements, func(s nft.Statement) bool { _, ok := s.(nft.Counter); return ok })
}

func packetsOf(r *nft.Rule) uint64 {
	if i := counterOf(r); i >= 0 {
		return r.Statements[i].(nft.Counter).Packets
	}
	return 0
}

// setCounter sets the figure of a rule. Chains of one table may share their
// statements with those of another.
func setCounter(c *nft.Chain, rule int, packets uint64) {
	r := &c.Rules[rule]
	r.Statements = slices.Clone(r.Statements)
	r.Statements[counterOf(r)] = nft.Counter{Packets: packets}
}
