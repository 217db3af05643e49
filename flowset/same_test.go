package flowset

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// TestOtherWordsChangeNothing compares drawn policies with what says the same in
// another order and in other words.
func TestOtherWordsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := modeltest.Parse(t, modeltest.YAML(modeltest.Usual).Draw(t, "policy"))
		other := *p
		other.SocketNamespaces = slices.Clone(p.SocketNamespaces)
		for i := range other.SocketNamespaces {
			n := &other.SocketNamespaces[i]
			for _, h := range model.Hooks {
				var rules []model.Rule
				for _, r := range n.Rules(h) {
					rules = append(rules, inOtherWords(t, p, r)...)
				}
				other = *modeltest.WithRules(&other, n.Name, h, rules)
				n = &other.SocketNamespaces[i]
			}
		}
		other.SocketNamespaces = rapid.Permutation(other.SocketNamespaces).Draw(t, "order")
		if c := Compare(p, &other); len(c) > 0 {
			t.Fatalf("%v", c)
		}
		if c := Compare(&other, p); len(c) > 0 {
			t.Fatalf("the other way: %v", c)
		}
	})
}

// inOtherWords returns rules that together say what one says.
func inOtherWords(t *rapid.T, p *model.Policy, r model.Rule) []model.Rule {
	list := []model.Rule{r}
	rewrite := func(f func(r model.Rule) []model.Rule) {
		if rapid.Bool().Draw(t, "rewrite") {
			var next []model.Rule
			for _, r := range list {
				next = append(next, f(r)...)
			}
			list = next
		}
	}
	rewrite(func(r model.Rule) []model.Rule { // what is absent is written out
		if len(r.Protocols) == 0 {
			r.Protocols = slices.Clone(model.Protocols[:])
			if len(r.Ports) > 0 {
				r.Protocols = slices.DeleteFunc(r.Protocols, func(p model.Protocol) bool { return !p.HasPorts() })
			}
		}
		if len(r.Peers) == 0 && r.Hook != model.Bind {
			r.Peers = []model.Peer{{Kind: model.PeerAny}}
		}
		return []model.Rule{r}
	})
	rewrite(func(r model.Rule) []model.Rule { // groups are their addresses
		var peers []model.Peer
		for _, peer := range r.Peers {
			if peer.Kind != model.PeerGroup {
				peers = append(peers, peer)
				continue
			}
			for _, a := range p.PeerAddresses(peer, nil) {
				peers = append(peers, model.Peer{Kind: model.PeerAddress, Address: a})
			}
		}
		r.Peers = peers
		return []model.Rule{r}
	})
	rewrite(func(r model.Rule) []model.Rule {
		return each(r, r.Protocols, func(r *model.Rule, p []model.Protocol) { r.Protocols = p })
	})
	rewrite(func(r model.Rule) []model.Rule {
		return each(r, r.Ports, func(r *model.Rule, p []model.PortRange) { r.Ports = p })
	})
	rewrite(func(r model.Rule) []model.Rule {
		return each(r, r.Peers, func(r *model.Rule, p []model.Peer) { r.Peers = p })
	})
	rewrite(func(r model.Rule) []model.Rule {
		return each(r, r.Local, func(r *model.Rule, p []model.Peer) { r.Local = p })
	})
	return list
}

// each returns a rule for each item of a list that a rule has.
func each[T any](r model.Rule, items []T, set func(*model.Rule, []T)) []model.Rule {
	if len(items) < 2 {
		return []model.Rule{r}
	}
	var list []model.Rule
	for i := range items {
		one := r
		set(&one, items[i:i+1])
		list = append(list, one)
	}
	return list
}
