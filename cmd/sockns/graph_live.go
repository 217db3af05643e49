package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/graph"
	"github.com/sockns/sockns/model"
)

// liveGraph returns the graph of a policy with what the running controller
// counted and refused; without files, of the controller's own.
func (c *cli) liveGraph(ctx context.Context, files []string) (*graph.Graph, error) {
	client := api.NewClient(controller.RuntimeDir())
	state, err := client.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("--live: %w", err)
	}
	if len(files) == 0 {
		if broken := state.Policy.Broken; broken != nil {
			return nil, fmt.Errorf("--live: the controller's files are not the policy in force, as they are broken: mend them, or name a policy with -f: %s", broken)
		}
		files = state.Policy.Paths
	}
	loaded, err := c.load(files)
	if err != nil {
		return nil, err
	}
	refusals, err := client.Refusals(ctx)
	if err != nil {
		return nil, fmt.Errorf("--live: %w", err)
	}
	host, err := controller.OpenHost()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	status, err := host.Status(loaded.Policy)
	if err != nil {
		return nil, err
	}
	g := graph.Build(loaded.Policy)
	live := graph.Live{At: time.Now(), Since: refusals.Since, Unplaced: refusals.Forgotten}
	live.Decisions, live.Shared = decisionsOf(g, status)
	g.SetLive(loaded.Policy, live, refusalsOf(refusals))
	return g, nil
}

// decisionsOf returns what the rules of a graph's policy decided, and the
// namespaces that are counted together with others.
func decisionsOf(g *graph.Graph, s *controller.Status) (decisions map[string]uint64, shared []string) {
	decisions = make(map[string]uint64)
	add := func(name string, r *controller.RuleCount, n uint64) {
		refuses := r.Outcome != compiler.Allowed
		if id := g.RuleID(name, r.Hook, r.Name); id != "" && (refuses || r.Name != "default") {
			decisions[id] += n
		}
	}
	for _, d := range s.Devices {
		counted := make(map[string]*controller.NamespaceStatus)
		for i := range d.Namespaces {
			counted[d.Namespaces[i].Name] = &d.Namespaces[i]
		}
		for i := range d.Namespaces {
			n := &d.Namespaces[i]
			name, _, _ := strings.Cut(n.Name, "/")
			for j := range n.Rules {
				r := &n.Rules[j]
				times := max(r.Packets, r.Calls) // a call that goes on makes a packet
				if r.Outcome == compiler.Refused {
					times = r.Packets + r.Calls
				}
				add(name, r, times)
			}
			with := counted[n.CountedUnder]
			if with == nil || with.Name == name {
				continue
			}
			for j := range with.Rules {
				add(name, &with.Rules[j], with.Rules[j].Packets)
			}
			for _, together := range []string{name, with.Name} {
				if !slices.Contains(shared, together) {
					shared = append(shared, together)
				}
			}
		}
	}
	return decisions, shared
}

// refusalsOf returns what was refused between two ends.
func refusalsOf(all *controller.Refusals) []graph.Refusal {
	var list []graph.Refusal
	for i := range all.Refusals {
		e, d := &all.Refusals[i], all.Refusals[i].Decided
		r := graph.Refusal{
			Namespace: e.Namespace, Hook: model.Connect, Words: d.Text, Peer: d.Peer,
			Local: d.Source.Addr(), Address: d.Destination.Addr(), Protocol: d.Protocol, Port: d.Destination.Port(),
			Audit: d.Mode == model.Audit, Count: d.Count, Last: e.Time,
		}
		switch {
		case d.Behind || d.Count == 0 || d.Hook == model.Bind.String():
			continue
		case d.Hook == model.Accept.String():
			r.Hook, r.Local, r.Address = model.Accept, r.Address, r.Local
		}
		list = append(list, r)
	}
	return list
}
