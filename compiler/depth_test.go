package compiler

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/nft"
)

// TestDepth holds that chains never lead deeper into one another than the
// kernel allows: fewer than NFT_JUMP_STACK_SIZE (16) verdicts.
func TestDepth(t *testing.T) {
	const jumpStackSize = 16
	gen := modeltest.YAML(modeltest.Options{Cgroups: []string{"/a", "/a/b", "/c", "/d"}, Pattern: "/user.slice/user-*.slice"})
	rapid.Check(t, func(t *rapid.T) {
		p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(gen.Draw(t, "policy"))}})
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		f := Facts{Devices: map[string]DeviceFacts{model.HostDevice: {}}}
		for i, n := range p.SocketNamespaces {
			name := n.Name
			if n.Each != "" {
				name += "/1"
			}
			f.Members = append(f.Members, Member{Namespace: name, Path: fmt.Sprintf("/x/%d", i), ID: uint64(i + 1), Level: 1 + i%3})
		}
		for _, d := range Compile(p, f).Devices {
			if way := deepest(d.Table); len(way) > jumpStackSize {
				t.Fatalf("%d verdicts deep: %v", len(way)-1, way)
			}
		}
	})
}

// deepest returns the longest way through a table's chains from a base chain.
func deepest(table *nft.Table) []string {
	next := make(map[string][]string)
	lead := func(from string, v nft.Verdict) {
		if v.Chain != "" {
			next[from] = append(next[from], v.Chain)
		}
	}
	elements := make(map[string][]nft.Element)
	for _, s := range table.Sets {
		elements[s.Name] = s.Elements
	}
	for _, c := range table.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				switch s := s.(type) {
				case nft.Verdict:
					lead(c.Name, s)
				case nft.VMap:
					for _, e := range elements[s.Map] {
						lead(c.Name, e.Verdict)
					}
				}
			}
		}
	}
	known := make(map[string][]string)
	var from func(string) []string
	from = func(chain string) []string {
		if way, ok := known[chain]; ok {
			return way
		}
		var best []string
		for _, n := range next[chain] {
			if way := from(n); len(way) > len(best) {
				best = way
			}
		}
		known[chain] = append([]string{chain}, best...)
		return known[chain]
	}
	var best []string
	for _, c := range table.Chains {
		if way := from(c.Name); c.Base != nil && len(way) > len(best) {
			best = slices.Clone(way)
		}
	}
	return best
}
