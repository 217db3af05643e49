package compiler

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sockns/sockns/nft"
)

// Described is a socket namespace as a table holds it, in the policy's words.
type Described struct {
	Name string
	// Identity is the number that stands for it in the kernel.
	Identity uint32
	Rules    []string // "connect 1: may connect db tcp/5432"; nil for an instance, whose template has them
	Members  []string // cgroup paths
	// Counters are those of the rules, in the same order. Instances of a
	// template, and many namespaces with the same rules, share the figures.
	Counters []Counted
	// Policy names the chains that its rules are in, which others may share.
	Policy string
	lists  []string // the sets of lists that its rules ask
	// AuditSince is since when Counters says what would have been refused; zero
	// if nothing is in audit.
	AuditSince time.Time
}

// Counted is a rule with the packets that it decided.
type Counted struct {
	Rule    string  `json:"rule"` // with hook and number: "connect 2: may not connect any"
	Packets uint64  `json:"packets"`
	Hook    string  `json:"hook"`
	Number  string  `json:"number"` // in the hook's list, from 1, or "default"
	Name    string  `json:"name"`   // its words, or "default": the same wherever it stands in the list
	Outcome Outcome `json:"outcome"`
}

// Tag is what the syscall tier counts the rule by, see [syscalls.Tally].
func (c *Counted) Tag() uint32 { return tagOf(c.Name) }

// counted reads a rule and the words of its comment: "connect 2: may not connect any".
func counted(r *nft.Rule) Counted {
	words := wordsOf(r.Comment)
	head, rest, _ := strings.Cut(words, ": ")
	hook, number, _ := strings.Cut(head, " ")
	c := Counted{Rule: words, Hook: hook, Number: number, Name: rest, Outcome: Allowed}
	denies := strings.HasPrefix(rest, "may not ")
	if number == "default" {
		denies, c.Name = rest != "allow", DefaultName
	}
	if denies {
		c.Outcome = Audited
	}
	c.Packets = packetsOf(r)
	for _, s := range r.Statements {
		if v, ok := s.(nft.Verdict); ok && strings.HasPrefix(v.Chain, refusePrefix) {
			c.Outcome = Refused
		}
	}
	return c
}

// Describe reads back what a table says about socket namespaces, sorted by
// name. A nil table has none. Only tables that [Compile] made have something
// to say: the words are the rules' comments.
func Describe(t *nft.Table) []Described {
	if t == nil {
		return nil
	}
	words := wordsOfPolicies(t)
	var out []Described
	var instances []Described
	policies := make(map[string]string) // of namespaces and templates
	members := make(map[string][]string)
	for _, s := range t.Sets {
		switch {
		case s.Name == namespacesMap || s.Name == templatesMap:
			for _, e := range s.Elements {
				policy, _ := policyOf(e.Verdict.Chain)
				d := Described{Name: e.Comment, Identity: uint32(e.Key[0].Num), Policy: policy}
				if w := words[policy]; w != nil {
					d.Rules, d.Counters, d.AuditSince, d.lists = w.rules, w.counters, w.auditSince, w.lists
				}
				policies[d.Name] = policy
				out = append(out, d)
			}
		case s.Name == marksMap:
			for _, e := range s.Elements {
				if e.Comment != "" {
					instances = append(instances, Described{Name: e.Comment, Identity: uint32(e.Key[0].Num)})
				}
			}
		case strings.HasPrefix(s.Name, "identity_"):
			for _, e := range s.Elements {
				name, path, _ := strings.Cut(e.Comment, " ")
				members[name] = append(members[name], path)
			}
		}
	}
	for _, d := range instances {
		d.Policy = policies[templateOf(d.Name)]
		out = append(out, d)
	}
	for i := range out {
		out[i].Members = members[out[i].Name]
		sort.Strings(out[i].Members)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// described is a policy in words: its rules by hook and index.
type described struct {
	rules      []string
	counters   []Counted
	auditSince time.Time
	lists      []string // the sets of lists that its rules ask, sorted
}

// wordsOfPolicies returns the words of each policy's rules. A rule of the policy
// can be many of the kernel, which count together.
func wordsOfPolicies(t *nft.Table) map[string]*described {
	type rule struct{ policy, words string }
	words := make(map[string]*described)
	place := make(map[rule]int)
	for _, c := range t.Chains {
		policy, ok := policyOf(c.Name)
		if !ok {
			continue
		}
		for _, r := range c.Rules {
			d := words[policy]
			if d == nil {
				d = &described{}
				words[policy] = d
			}
			for _, s := range r.Statements {
				if m, ok := s.(nft.MatchSet); ok && isListSet(m.Set) {
					d.lists = append(d.lists, m.Set)
				}
			}
			if r.Comment == "" {
				continue
			}
			n := counted(&r)
			of := rule{policy, n.Rule}
			if i, known := place[of]; known {
				d.counters[i].Packets += n.Packets
				if n.Outcome == Refused { // another of its rules only leads there
					d.counters[i].Outcome = Refused
				}
			} else {
				place[of] = len(d.counters)
				d.counters = append(d.counters, n)
			}
		}
		if d := words[policy]; d != nil && strings.HasPrefix(c.Comment, auditComment) {
			d.auditSince, _ = time.Parse(time.RFC3339, c.Comment[len(auditComment):])
		}
	}
	for _, d := range words {
		slices.SortStableFunc(d.counters, func(a, b Counted) int { return cmp.Compare(rank(a.Rule), rank(b.Rule)) })
		for _, c := range d.counters {
			d.rules = append(d.rules, c.Rule)
		}
		slices.Sort(d.lists)
		d.lists = slices.Compact(d.lists)
	}
	return words
}

// policyOf returns the policy of a chain: web.0123456789 of
// web.0123456789.connect.2.
func policyOf(chain string) (policy string, ok bool) {
	owner, rest, _ := strings.Cut(chain, ".")
	sum, _, ok := strings.Cut(rest, ".")
	if !ok {
		return "", false
	}
	return chain[:len(owner)+1+len(sum)], true
}

// rank orders "connect 2: ..." by hook, then number; a default is last.
func rank(words string) int {
	head, _, _ := strings.Cut(words, ":")
	hook, index, _ := strings.Cut(head, " ")
	r := 0
	switch hook {
	case "connect":
		r = 100000
	case "accept":
		r = 200000
	}
	if index == "default" {
		return r + 99999
	}
	n := 0
	for _, c := range index {
		n = n*10 + int(c-'0')
	}
	return r + n
}

// Op says what becomes of the subject of a [Change].
type Op string

// The operations of a plan.
const (
	Add    Op = "+"
	Change Op = "~"
	Remove Op = "-"
)

// Step is one line of a plan, in the policy's words.
type Step struct {
	Op        Op     `json:"op"`
	Namespace string `json:"namespace"`
	Text      string `json:"text"` // empty: the namespace itself
}

// String returns the step without its sign: "web may connect db tcp/5432".
func (s Step) String() string {
	if s.Text == "" {
		return "socket namespace " + s.Namespace
	}
	return s.Namespace + " " + s.Text
}

// Steps says in the policy's words how two tables of a device namespace
// differ. It is empty if nothing that they allow, refuse or hold differs.
func Steps(old, new *nft.Table) []Step {
	was, is := Describe(old), Describe(new)
	byName := make(map[string]Described, len(was))
	for _, d := range was {
		byName[d.Name] = d
	}
	var steps []Step
	for _, d := range is {
		o, existed := byName[d.Name]
		delete(byName, d.Name)
		if !existed {
			steps = append(steps, Step{Op: Add, Namespace: d.Name})
		}
		n := len(steps)
		steps = append(steps, compare(d.Name, o.Rules, d.Rules)...)
		steps = append(steps, compare(d.Name, withPrefix("member ", o.Members), withPrefix("member ", d.Members))...)
		if existed && n == len(steps) && len(d.Rules) > 0 && (sum(o.Policy) != sum(d.Policy) || !slices.Equal(o.lists, d.lists)) {
			steps = append(steps, Step{Op: Change, Namespace: d.Name, Text: "what its rules mean: addresses of a group, of a namespace or of its own, the mode, or the order"})
		}
	}
	for _, d := range was {
		if _, gone := byName[d.Name]; !gone {
			continue
		}
		steps = append(steps, Step{Op: Remove, Namespace: d.Name})
		steps = append(steps, compare(d.Name, d.Rules, nil)...)
		steps = append(steps, compare(d.Name, withPrefix("member ", d.Members), nil)...)
	}
	return steps
}

// sum returns the digest in a policy's name.
func sum(policy string) string {
	_, s, _ := strings.Cut(policy, ".")
	return s
}

func withPrefix(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}

// compare lists what was removed from and added to a list of words. The same
// place with other words is a change.
func compare(name string, old, new []string) []Step {
	in := func(list []string) map[string]bool {
		m := make(map[string]bool, len(list))
		for _, s := range list {
			m[tail(s)] = true
		}
		return m
	}
	had, has := in(old), in(new)
	var steps []Step
	for _, s := range old {
		if !has[tail(s)] {
			steps = append(steps, Step{Op: Remove, Namespace: name, Text: tail(s)})
		}
	}
	for _, s := range new {
		if !had[tail(s)] {
			steps = append(steps, Step{Op: Add, Namespace: name, Text: tail(s)})
		}
	}
	return steps
}

// tail is a rule's words without its number, which others' coming and going moves.
func tail(words string) string {
	head, rest, ok := strings.Cut(words, ": ")
	if !ok || strings.HasSuffix(head, " default") {
		return words
	}
	return rest
}
