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
	live.Decisions, live.Shared = decisionsOf(loaded.Policy, status)
	g.SetLive(loaded.Policy, live, refusalsOf(refusals))
	return g, nil
}

// decisionsOf returns what the rules of a policy decided, by their IDs in its
// graph, and the namespaces that are counted together with others.
func decisionsOf(p *model.Policy, s *controller.Status) (decisions map[string]uint64, shared []string) {
	decisions = make(map[string]uint64)
	ids := countedIDs(p)
	add := func(name string, r *controller.RuleCount, n uint64) {
		if id := ids[counted{name, r.Hook, r.Name}]; id != "" && (r.Name != compiler.DefaultName || r.Outcome != compiler.Allowed) {
			decisions[id] += n
		}
	}
	for _, d := range s.Devices {
		byName := make(map[string]*controller.NamespaceStatus)
		for i := range d.Namespaces {
			byName[d.Namespaces[i].Name] = &d.Namespaces[i]
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
			with := byName[n.CountedUnder]
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

// counted is how the kernel's counters know a rule.
type counted struct{ namespace, hook, name string }

// countedIDs returns the IDs in the graph of what is counted. Of two rules with
// the same words the first is counted: the other never decides.
func countedIDs(p *model.Policy) map[counted]string {
	ids := make(map[counted]string)
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, h := range model.Hooks {
			ids[counted{n.Name, h.String(), compiler.DefaultName}] = graph.DefaultID(n.Name, h)
			rules := n.Rules(h)
			for j := range rules {
				k := counted{n.Name, h.String(), compiler.RuleName(&rules[j])}
				if _, known := ids[k]; !known {
					ids[k] = graph.RuleID(n.Name, &rules[j])
				}
			}
		}
	}
	return ids
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
