package compiler

import (
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/nft"
)

// Figures is what the rules of a table have counted.
type Figures struct {
	packets    map[figure]uint64 // but those that are 0
	auditSince map[string]time.Time
}

// figure is what is counted together: a rule keeps its name when others come
// and go around it, and what it refused is not what it would have refused.
type figure struct {
	namespace, hook, name string
	outcome               Outcome
}

func figureOf(namespace string, r *nft.Rule) figure {
	c := counted(r)
	return figure{namespace, c.Hook, c.Name, c.Outcome}
}

// FiguresOf reads the figures of the namespaces that have their counters for
// themselves. A nil table has none.
func FiguresOf(t *nft.Table) *Figures {
	f := &Figures{packets: make(map[figure]uint64), auditSince: make(map[string]time.Time)}
	mine := owners(t)
	eachPolicyChain(t, func(policy string, c *nft.Chain) {
		name := mine[policy].alone()
		if name == "" {
			return
		}
		if since, ok := strings.CutPrefix(c.Comment, auditComment); ok {
			f.auditSince[name], _ = time.Parse(time.RFC3339, since)
		}
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Comment != "" {
				if n := packetsOf(r); n > 0 {
					f.packets[figureOf(name, r)] += n
				}
			}
		}
	})
	return f
}

// owner is whose a policy is.
type owner struct {
	first  string // of the namespaces and templates that have it, by name
	shared bool
}

// alone returns the namespace or template that shares its policy with nobody,
// "" if there is none.
func (o owner) alone() string {
	if o.shared {
		return ""
	}
	return o.first
}

// owners returns whose the policies of a table are.
func owners(t *nft.Table) map[string]owner {
	all := make(map[string]owner)
	if t == nil {
		return all
	}
	for i := range t.Sets {
		if name := t.Sets[i].Name; name != namespacesMap && name != templatesMap {
			continue
		}
		for _, e := range t.Sets[i].Elements { // an instance is counted under its template
			policy, _ := policyOf(e.Verdict.Chain)
			o, known := all[policy]
			o.shared = known
			if !known || e.Comment < o.first {
				o.first = e.Comment
			}
			all[policy] = o
		}
	}
	return all
}

func eachPolicyChain(t *nft.Table, visit func(policy string, c *nft.Chain)) {
	if t == nil {
		return
	}
	for i := range t.Chains {
		if policy, ok := policyOf(t.Chains[i].Name); ok {
			visit(policy, &t.Chains[i])
		}
	}
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
	have.atLeast(was)
	busy := make(map[string]bool) // namespaces that have counted something
	for f := range have.packets {
		busy[f.namespace] = true
	}
	before := make(map[string]*nft.Chain)
	if old != nil {
		for i := range old.Chains {
			before[old.Chains[i].Name] = &old.Chains[i]
		}
	}
	stays := func(c *nft.Chain) bool {
		o := before[c.Name]
		return o != nil && len(o.Rules) == len(c.Rules)
	}
	for i := range new.Chains {
		keepFigures(before, &new.Chains[i], stays)
	}
	mine := owners(new)
	// What the chains that stay have of a namespace's figures, the others have not.
	eachPolicyChain(new, func(policy string, c *nft.Chain) {
		if name := mine[policy].alone(); busy[name] && stays(c) {
			for i := range c.Rules {
				if n := packetsOf(&c.Rules[i]); n > 0 && c.Rules[i].Comment != "" {
					f := figureOf(name, &c.Rules[i])
					have.packets[f] -= min(have.packets[f], n)
				}
			}
		}
	})
	audited := make(map[string]bool) // policies
	eachPolicyChain(new, func(policy string, c *nft.Chain) {
		name := mine[policy].alone()
		if name == "" {
			return
		}
		audited[policy] = audited[policy] || slices.ContainsFunc(c.Rules, audits)
		if !busy[name] || stays(c) {
			return
		}
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Comment != "" && counterOf(r) >= 0 {
				f := figureOf(name, r)
				setCounter(c, i, have.packets[f])
				delete(have.packets, f)
			}
		}
	})
	eachPolicyChain(new, func(policy string, c *nft.Chain) {
		if !audited[policy] || c.Name != policy+"."+partConnect {
			return
		}
		since := have.auditSince[mine[policy].first]
		if since.IsZero() {
			since = now
		}
		c.Comment = auditComment + since.UTC().Format(time.RFC3339)
	})
}

// keepFigures gives a chain that stays the figures that it has, and another none.
func keepFigures(before map[string]*nft.Chain, c *nft.Chain, stays func(*nft.Chain) bool) {
	kept := stays(c)
	for i := range c.Rules {
		if counterOf(&c.Rules[i]) < 0 {
			continue
		}
		n := uint64(0)
		if kept {
			n = packetsOf(&before[c.Name].Rules[i])
		}
		setCounter(c, i, n)
	}
}

// audits reports whether a rule tells of what is in audit.
func audits(r nft.Rule) bool {
	return slices.ContainsFunc(r.Statements, func(s nft.Statement) bool {
		l, ok := s.(nft.Log)
		return ok && strings.HasPrefix(l.Prefix, prefixBegin+string(Audited)+" ")
	})
}

// With returns the figures with those of a table that count more.
func (f *Figures) With(t *nft.Table) *Figures {
	all := FiguresOf(t)
	all.atLeast(f)
	return all
}

// atLeast takes what other figures have more of.
func (f *Figures) atLeast(other *Figures) {
	if other == nil {
		return
	}
	for k, n := range other.packets {
		f.packets[k] = max(f.packets[k], n)
	}
	for name, t := range other.auditSince {
		if f.auditSince[name].IsZero() {
			f.auditSince[name] = t
		}
	}
}

// counterOf returns which statement of a rule is its counter, -1 if none is.
func counterOf(r *nft.Rule) int {
	for i, s := range r.Statements {
		if _, ok := s.(nft.Counter); ok {
			return i
		}
	}
	return -1
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
	if packetsOf(r) == packets {
		return
	}
	r.Statements = slices.Clone(r.Statements)
	r.Statements[counterOf(r)] = nft.Counter{Packets: packets}
}
