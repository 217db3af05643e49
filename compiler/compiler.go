// Package compiler turns a policy and the facts about a host into nftables
// tables, one for each device namespace. It is pure: no I/O, no clock, no
// globals; the same input gives the same tables.
//
// The passes, each in a file of its own:
//
//	identity   every socket namespace gets the number that marks its packets on lo
//	alike      namespaces that say the same are lowered once
//	lists      rules become clauses whose peers are matches, not names
//	sets       long lists of addresses and ports become sets, where prices say so
//	lower      clauses become rules of chains; first match wins exactly
//	transports a list that is much of TCP and of UDP is written for each
//	questions  what is dear to find out is asked as late as it can be
//	policy     the chains of one socket namespace: connect, local, accept, self
//	share      chains are named by content; many namespaces share those with the same
//	assemble   maps from cgroups to chains, and the base chains that ask them
//	notes      what differs from what was asked
//
// Those that make packets or applies cheaper can be left out: [Passes].
//
// docs/architecture.md explains the shape of the table.
package compiler

import (
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// TableName is the name of the table, of family inet, in each device namespace.
const TableName = "sockns"

// Program is what a policy compiles to.
type Program struct {
	Devices []Device // in the order of the policy
	Notes   []Note
	kept    *kept
}

// Device is the part of a program for one device namespace.
type Device struct {
	Name  string
	Table *nft.Table // nil if no socket namespace lives there, or if it came of [Program.Change]
	Index *Index     // nil if Table is
}

// Compile compiles a policy that has no errors. A device namespace that is
// absent from the facts does not exist now and gets no table.
// Namespaces share their chains if there are many.
func Compile(p *model.Policy, f Facts) *Program {
	return compile(p, f, func(spaces []*space) Passes {
		if many(spaces) {
			return AllPasses
		}
		return AllPasses &^ PassShare
	})
}

// CompileWith compiles with some of the optimising passes alone. What is decided
// is the same.
func CompileWith(p *model.Policy, f Facts, passes Passes) *Program {
	return compile(p, f, func([]*space) Passes { return passes })
}

func compile(p *model.Policy, f Facts, passes func([]*space) Passes) *Program {
	prog := &Program{Notes: notes(p, f), kept: &kept{policy: p, facts: f, passes: passes, devices: make(map[string]*keptDevice)}}
	for _, d := range p.DeviceNamespaces {
		facts, ok := f.Devices[d.Name]
		if !ok {
			continue
		}
		out := Device{Name: d.Name}
		if spaces := spacesOf(p, d.Name, f); len(spaces) > 0 {
			r := newResolver(p, p.Names(), d.Name, facts, spaces, identities(spaces), passes(spaces))
			r.lists = newLists(r, spaces)
			policies := lowerPolicies(r, spaces)
			share(r, spaces, policies)
			out.Table, out.Index = assemble(r, spaces, policies, f)
			prog.kept.devices[d.Name] = keep(r, spaces, policies, firstsOf(spaces, policies), out.Index)
		}
		prog.Devices = append(prog.Devices, out)
	}
	return prog
}

func newResolver(p *model.Policy, names model.Names, device string, facts DeviceFacts, spaces []*space, ids map[string]uint32, passes Passes) *resolver {
	r := &resolver{policy: p, names: names, device: device, ids: ids, facts: facts, passes: passes}
	r.deep, r.always = levelsOf(spaces)
	return r
}
