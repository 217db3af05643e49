package graph

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/model"
)

// Live is what a running controller tells of a policy in force.
type Live struct {
	At    time.Time `json:"at"`    // until when
	Since time.Time `json:"since"` // since when refusals are remembered
	// Decisions by what took them: the ID of a rule, or "NAMESPACE HOOK default"
	// for what a default refused or would have.
	Decisions map[string]uint64 `json:"decisions"`
	// Shared are namespaces whose decisions are counted together with those of
	// others that have the same rules.
	Shared []string `json:"shared,omitempty"`
	// Unplaced counts refusals of ends that the kernel did not tell of, which
	// are on no edge.
	Unplaced uint64 `json:"unplaced,omitempty"`
}

// Hits is how often something began on an edge.
type Hits struct {
	N uint64 `json:"n"`
	// Most says that it was N at most: each of the rules of the edge is about
	// others, too, and counts all of them.
	Most bool `json:"most,omitempty"`
}

// Refusal is a connect or accept that was refused, as often as it was.
type Refusal struct {
	Namespace string // whose rules refused; an instance of a template counts as its template
	Hook      model.Hook
	Words     string // the rule, as [Rule.Words] has it; "default" for the default
	// Peer is the namespace of the other end, or "unmanaged"; empty where it is
	// elsewhere or the kernel did not tell.
	Peer     string
	Address  netip.Addr // of the other end
	Local    netip.Addr // of this end
	Protocol model.Protocol
	Port     uint16 // of the listening end
	Audit    bool   // it happened all the same
	Count    uint64
	Last     time.Time
}

// Refused is what was refused on an edge.
type Refused struct {
	Protocol model.Protocol `json:"protocol"`
	Port     uint16         `json:"port,omitempty"`
	By       string         `json:"by"`              // as Flow.Connect
	Audit    bool           `json:"audit,omitempty"` // it would have been refused
	Count    uint64         `json:"count"`
	Last     time.Time      `json:"last"`
}

// Words returns "tcp/5432 refused 3 times by db accept default".
func (r *Refused) Words() string {
	verb := " refused "
	if r.Audit {
		verb = " would be refused: "
	}
	return trafficOf([]model.Protocol{r.Protocol}, r.ports()) + verb + times(r.Count) + " by " + r.By
}

func (r *Refused) ports() Ports {
	if r.Port == 0 {
		return nil
	}
	return Ports{{First: r.Port, Last: r.Port}}
}

// SetLive puts what was counted and refused on the nodes and edges of the
// policy's graph. Refusals between ends that no rule speaks of get edges.
func (g *Graph) SetLive(p *model.Policy, l Live, refusals []Refusal) {
	g.Live = &l
	for i := range refusals {
		r := &refusals[i]
		from, to, ok := g.place(p, r)
		if !ok {
			l.Unplaced += r.Count
			continue
		}
		e := g.between(from, to)
		e.refuse(Refused{Protocol: r.Protocol, Port: r.Port, By: g.decider(r), Audit: r.Audit, Count: r.Count, Last: r.Last})
	}
	for i := range g.Edges {
		slices.SortFunc(g.Edges[i].Refused, func(a, b Refused) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), cmp.Compare(a.By, b.By))
		})
	}
	g.countHits()
}

// decider returns the ID of what refused, by its words: it may stand
// elsewhere by now.
func (g *Graph) decider(r *Refusal) string {
	name := template(r.Namespace)
	if r.Words == "default" {
		return DefaultID(name, r.Hook)
	}
	for i := range g.Rules {
		if rule := &g.Rules[i]; rule.Namespace == name && rule.Hook == r.Hook.String() && rule.Words == r.Words {
			return rule.ID
		}
	}
	return "a former rule of " + name
}

// template returns the name of a namespace without an instance.
func template(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

// place returns the nodes of a refusal. It adds those outside that no rule
// names; ok is false where the kernel did not tell who the other end was.
func (g *Graph) place(p *model.Policy, r *Refusal) (from, to string, ok bool) {
	us := template(r.Namespace)
	n := p.Namespace(us)
	if n == nil || r.Hook == model.Bind {
		return "", "", false
	}
	them := ""
	switch {
	case r.Peer == "unmanaged":
		them = "unmanaged@" + n.Device
	case r.Peer != "":
		them = template(r.Peer)
	case r.Address.IsLoopback() || r.Address == r.Local || !r.Address.IsValid():
		return "", "", false
	default:
		them = g.outside(p, n, r)
	}
	if !g.Has(them) {
		return "", "", false
	}
	if r.Hook == model.Connect {
		return us, them, true
	}
	return them, us, true
}

// outside returns the node that has an address, as the rules of a namespace
// name it: the first that does, or elsewhere.
func (g *Graph) outside(p *model.Policy, n *model.SocketNamespace, r *Refusal) string {
	for _, rule := range n.Rules(r.Hook) {
		for _, peer := range rule.Peers {
			named := peer.Kind == model.PeerAddress || peer.Kind == model.PeerGroup
			if named && normal(p.PeerAddresses(peer, n)).holds(r.Address) && g.Has(peer.String()) {
				return peer.String()
			}
		}
	}
	id := string(Elsewhere)
	if !g.Has(id) {
		g.Nodes = append(g.Nodes, Node{ID: id, Kind: Elsewhere})
	}
	return id
}

// between returns the edge between two nodes, a new one if there is none.
func (g *Graph) between(from, to string) *Edge {
	i := slices.IndexFunc(g.Edges, func(e Edge) bool { return e.From == from && e.To == to })
	if i < 0 {
		i = len(g.Edges)
		g.Edges = append(g.Edges, Edge{From: from, To: to})
	}
	return &g.Edges[i]
}

func (e *Edge) refuse(r Refused) {
	for i := range e.Refused {
		if have := &e.Refused[i]; have.Protocol == r.Protocol && have.Port == r.Port && have.By == r.By && have.Audit == r.Audit {
			have.Count += r.Count
			if have.Last.Before(r.Last) {
				have.Last = r.Last
			}
			return
		}
	}
	e.Refused = append(e.Refused, r)
}

// countHits says of each edge how often its rules decided. A rule that is
// about one edge alone counts what happened there; one that is about several
// is a bound. What no rule decides is not counted.
func (g *Graph) countHits() {
	rules := make(map[string]*Rule)
	for i := range g.Rules {
		rules[g.Rules[i].ID] = &g.Rules[i]
	}
	edges := make(map[string]int) // of each rule
	note := func(flows []Flow) {
		for id := range deciders(flows) {
			edges[id]++
		}
	}
	for i := range g.Nodes {
		note(g.Nodes[i].Within)
	}
	for i := range g.Edges {
		note(g.Edges[i].Flows)
	}
	side := func(ids map[string]bool) Hits {
		var sum Hits
		for id := range ids {
			rule := rules[id]
			if rule == nil {
				return unbounded
			}
			sum.N += g.Live.Decisions[id]
			sum.Most = sum.Most || edges[id] > 1 || slices.Contains(g.Live.Shared, rule.Namespace)
		}
		return sum
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		connect, accept := make(map[string]bool), make(map[string]bool)
		for _, f := range e.Flows {
			if rules[f.Connect] != nil || rules[f.Accept] != nil {
				connect[f.Connect], accept[f.Accept] = true, true
			}
		}
		if len(connect) == 0 {
			continue
		}
		best, other := side(connect), side(accept)
		if best.Most && (!other.Most || other.N < best.N) {
			best = other
		}
		if best != unbounded {
			e.Hits = &best
		}
	}
}

// deciders returns what allows some flows.
func deciders(flows []Flow) map[string]bool {
	ids := make(map[string]bool)
	for i := range flows {
		ids[flows[i].Connect], ids[flows[i].Accept] = true, true
	}
	return ids
}

// unbounded is what is known where something else than a rule decides, which
// is not counted.
var unbounded = Hits{N: math.MaxUint64, Most: true}

// Words returns "3 times", or "at most 3 times".
func (h *Hits) Words() string {
	if h.Most {
		return "at most " + times(h.N)
	}
	return times(h.N)
}

func times(n uint64) string {
	if n == 1 {
		return "1 time"
	}
	return fmt.Sprintf("%d times", n)
}
