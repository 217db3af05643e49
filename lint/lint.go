// Package lint finds what a policy says in vain: rules that no flow reaches or
// that change nothing, rules that the other end contradicts, peers that can't
// be met, binds that two namespaces may have. What it says of rules is exact:
// it follows from the algebra of package flowset, and is as true as
// [model.Decide]. Namespaces in audit are looked at as if they were not.
//
// The package is pure.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/model"
)

// Finding is something that a policy says in vain, at its place.
type Finding struct {
	ID        string         `json:"id"` // of a [Kind]
	Pos       model.Position `json:"position"`
	Namespace string         `json:"namespace,omitempty"`
	Rule      string         `json:"rule,omitempty"` // in its words
	Message   string         `json:"message"`
	Remedy    string         `json:"remedy"`
	Related   []Related      `json:"related,omitempty"`
}

// Related is another place that a finding speaks of.
type Related struct {
	Pos     model.Position `json:"position"`
	Message string         `json:"message"`
}

// Diagnostic returns the finding as a warning.
func (f Finding) Diagnostic() model.Diagnostic {
	return model.Diagnostic{Pos: f.Pos, Severity: model.Warning, Message: fmt.Sprintf("%s; %s [%s]", f.Message, f.Remedy, f.ID)}
}

// Check returns what is found in a policy without errors, in the order of its
// files, but what comments in them ask to ignore.
func Check(p *model.Policy, files []model.File) []Finding {
	c := &checker{policy: p, names: p.Names(), lists: flowset.NewLists(p)}
	c.empty(files)
	c.groups()
	c.births()
	c.binds()
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, h := range model.Hooks {
			c.rules(n, h)
		}
	}
	return ignoring(sorted(c.found, files), files)
}

// checker gathers findings.
type checker struct {
	policy *model.Policy
	names  model.Names
	lists  *flowset.Lists
	found  []Finding
}

func (c *checker) add(f Finding) { c.found = append(c.found, f) }

// empty finds a policy that enforces nothing.
func (c *checker) empty(files []model.File) {
	if len(c.policy.SocketNamespaces) == 0 && len(files) > 0 {
		c.add(Finding{
			ID: EmptyPolicy, Pos: model.Position{File: files[0].Name, Line: 1, Column: 1},
			Message: "no socket namespaces: nothing is enforced", Remedy: "declare some under socketNamespaces",
		})
	}
}

// sorted returns findings in the order of the files.
func sorted(list []Finding, files []model.File) []Finding {
	order := make(map[string]int, len(files))
	for i, f := range files {
		order[f.Name] = i
	}
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.Pos.File], order[b.Pos.File]), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return list
}

// and lists words: "a, b and c".
func and(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}
