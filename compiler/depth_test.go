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
	gen := modeltest.YAML(modeltest.Options{Cgroups: []string{"/a", "/a/b", "/c", "/d"}, Pattern: "/user.slice/user-*.slice", Long: true})
	check := func(t interface{ Fatalf(string, ...any) }, text string) {
		p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}})
		if diagnostics.HasErrors() {
			t.Fatalf("%v", diagnostics)
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
	}
	t.Run("found", func(t *testing.T) { check(t, deepPolicy) })
	t.Run("found with a template", func(t *testing.T) { check(t, deepTemplate) })
	rapid.Check(t, func(t *rapid.T) { check(t, gen.Draw(t, "policy")) })
}

// deepPolicy led from the accept list of ns2 by the connect list of ns1 to what
// ns2 says of itself: 16 verdicts, which the kernel does not take.
const deepPolicy = `apiVersion: sockns/v1
groups: {corp: [10.0.0.0, 10.0.0.0]}
socketNamespaces:
  ns1:
    members: [{cgroup: /a/b}]
    accept:
      - {ports: 1, from: [any, corp]}
  ns2:
    members: [{cgroup: /c}]
    addresses: [10.0.0.0, 10.0.0.2, '2001:db8::']
    bind:
      - {}
      - {}
      - {ports: 1, local: 10.0.0.0}
      - {ports: [3, 1]}
    connect:
      - {ports: [3, 1], to: 10.0.0.0}
      - {action: deny, protocol: [tcp], to: [any, corp]}
      - {action: deny, error: ECONNREFUSED, protocol: [tcp], to: [any, corp]}
    accept:
      - {local: corp, from: any}
      - {local: 10.0.0.0, from: any}
      - {ports: 1, protocol: [tcp], from: [corp, 10.0.1.0]}
      - {protocol: [tcp]}
    default: {bind: deny}
`

// deepTemplate led through everything that stands before and behind lists: packets with
// a mark, the question to an instance of a template, and what ns0 says of itself.
const deepTemplate = `apiVersion: sockns/v1
socketNamespaces:
  ns0:
    members: [{unit: absent0.service}, {cgroup: /a}]
    addresses: [10.0.0.0, '2001:db8:0::0', 10.0.0.2]
    bind:
      - {local: [10.0.0.0, any]}
      - {}
      - {ports: [1-1, 3]}
    accept:
      - {from: [any, any, any]}
      - {ports: [1-1], protocol: [tcp], from: [10.0.0.0, '2001:db8:1000::/48']}
  user:
    each: /user.slice/user-*.slice
    connect:
      - {ports: [1-1, 1], to: [any]}
      - {protocol: [tcp], to: [unmanaged]}
      - {}
      - {protocol: [tcp], to: [any]}
    default: {bind: allow}
`

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
