package compiler

import (
	"sort"
	"strings"

	"github.com/sockns/sockns/nft"
)

// Described is a socket namespace as a table holds it, in the policy's words.
type Described struct {
	Name string
	// Identity is the number that stands for it in the kernel.
	Identity uint32
	Rules    []string // "connect 1: may connect to db tcp/5432"; nil for an instance, whose template has them
	Members  []string // cgroup paths
	// Counters are those of the rules, in the same order; namespaces that share
	// their rules share the figures.
	Counters []Counted
	policy   string
}

// Counted is a rule with the packets that it decided.
type Counted struct {
	Rule    string `json:"rule"`
	Packets uint64 `json:"packets"`
}

// Describe reads back what a table says about socket namespaces, sorted by
// name. A nil table has none. Only tables that [Compile] made have something
// to say: the words are the rules' comments.
func Describe(t *nft.Table) []Described {
	if t == nil {
		return nil
	}
	words := make(map[string][]string) // of a policy
	counts := make(map[string]uint64)  // of a policy's words
	for _, c := range t.Chains {
		policy, part, ok := splitChain(c.Name)
		if !ok {
			continue
		}
		for _, r := range c.Rules {
			if r.Comment == "" {
				continue
			}
			w := wordsOf(r.Comment)
			counts[policy+w] += packets(r)
			if part != partSelf {
				words[policy] = append(words[policy], w)
			}
		}
	}
	for policy := range words {
		words[policy] = inOrder(words[policy])
	}
	var out []Described
	members := make(map[string][]string)
	for _, s := range t.Sets {
		switch {
		case s.Name == namespacesMap:
			for _, e := range s.Elements {
				policy, _, _ := splitChain(e.Verdict.Chain)
				d := Described{Name: e.Comment, Identity: uint32(e.Key[0].Num), policy: policy}
				if templateOf(e.Comment) == e.Comment {
					d.Rules = words[policy]
					for _, w := range d.Rules {
						d.Counters = append(d.Counters, Counted{Rule: w, Packets: counts[policy+w]})
					}
				}
				out = append(out, d)
			}
		case strings.HasPrefix(s.Name, "identity_"):
			for _, e := range s.Elements {
				name, path, _ := strings.Cut(e.Comment, " ")
				members[name] = append(members[name], path)
			}
		}
	}
	for i := range out {
		out[i].Members = members[out[i].Name]
		sort.Strings(out[i].Members)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func packets(r nft.Rule) uint64 {
	for _, s := range r.Statements {
		if c, ok := s.(nft.Counter); ok {
			return c.Packets
		}
	}
	return 0
}

// splitChain splits web.0123456789.connect.2 into web.0123456789 and connect.
func splitChain(name string) (policy, part string, ok bool) {
	f := strings.Split(name, ".")
	if len(f) < 3 || f[0] == "reject" || f[0] == "refuse" {
		return "", "", false
	}
	return f[0] + "." + f[1], f[2], true
}

// inOrder sorts the words of a policy's rules by hook and index and drops
// repetitions: a rule of the policy can be many of the kernel.
func inOrder(words []string) []string {
	seen := make(map[string]bool)
	var out []string
	for _, w := range words {
		if !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return rank(out[i]) < rank(out[j]) })
	return out
}

// rank orders "connect 2: ..." by hook, then number; a default is last.
func rank(words string) int {
	head, _, _ := strings.Cut(words, ":")
	hook, index, _ := strings.Cut(head, " ")
	r := map[string]int{"bind": 0, "connect": 1, "accept": 2}[hook] * 100000
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
		if existed && n == len(steps) && o.policy != d.policy && len(d.Rules) > 0 && sum(o.policy) != sum(d.policy) {
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
