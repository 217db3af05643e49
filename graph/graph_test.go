package graph

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// TestEdgesAreWhatDecideSays draws policies and flows and compares the graph
// with the reference, flow by flow.
func TestEdgesAreWhatDecideSays(t *testing.T) {
	policies := modeltest.YAML(modeltest.Usual)
	rapid.Check(t, func(t *rapid.T) {
		text := policies.Draw(t, "policy")
		p := modeltest.Parse(t, text)
		g := Build(p)
		flows := modeltest.Flow(p)
		for range 40 {
			f := flows.Draw(t, "flow")
			if f.From.Local().IsValid() {
				f.From.Address, f.From.Picked = netip.AddrPortFrom(f.From.Local(), 0), netip.Addr{}
				compareOne(t, p, g, f, text)
			}
		}
	})
}

func compareOne(t *rapid.T, p *model.Policy, g *Graph, f model.Flow, text string) {
	from, to := nodeOf(g, f.From), nodeOf(g, f.To)
	local := f.From.Device != "" && f.From.Device == f.To.Device
	switch {
	case f.From.Namespace == "" && f.To.Namespace == "":
		return // no rule speaks of it
	case !local && (f.From.Local().IsLoopback() || f.To.Local().IsLoopback()):
		return // loopback does not leave a device namespace
	case !local && f.From.Namespace == "":
		compareOutside(t, p, g, f, model.Accept, text)
		return
	case !local && f.To.Namespace == "":
		compareOutside(t, p, g, f, model.Connect, text)
		return
	}
	d := model.Decide(p, f)
	var flows []Flow
	if f.From.Namespace == f.To.Namespace {
		flows = g.Nodes[slices.IndexFunc(g.Nodes, func(n Node) bool { return n.ID == from })].Within
	} else if i := slices.IndexFunc(g.Edges, func(e Edge) bool { return e.From == from && e.To == to }); i >= 0 {
		flows = g.Edges[i].Flows
	}
	matching := 0
	for _, flow := range flows {
		if !covers(&flow, f, d) {
			continue
		}
		matching++
		enforced := d.Connect.Action == model.Allow && d.Accept.Action == model.Allow && d.FromBind.Action == model.Allow && d.ToBind.Action == model.Allow
		if d.Allowed() && flow.Audit == enforced {
			t.Fatalf("audit %v of %+v: %+v\n%s", flow.Audit, f, d, text)
		}
		if r := d.Connect.Rule; d.Allowed() && r != nil && flow.Connect != fmt.Sprintf("%s connect#%d", from, r.Index) {
			t.Fatalf("%+v: connect by %s, want %+v\n%s", f, flow.Connect, r, text)
		}
		if r := d.Accept.Rule; d.Allowed() && r != nil && flow.Accept != fmt.Sprintf("%s accept#%d", to, r.Index) {
			t.Fatalf("%+v: accept by %s, want %+v\n%s", f, flow.Accept, r, text)
		}
	}
	want := 0
	if d.Allowed() {
		want = 1
	}
	if matching != want {
		t.Fatalf("%d flows of the graph cover %+v, of which Decide says %+v\nnodes %s, %s\n%+v\n%s", matching, f, d, from, to, flows, text)
	}
	for _, e := range g.Edges {
		if e.From != from || e.To != to || f.From.Namespace == f.To.Namespace {
			continue
		}
		for _, o := range e.OneSided {
			if slices.Contains(o.Protocols, f.Protocol) && hasPort(o.Ports, f.To.Address.Port()) && d.Allowed() {
				t.Fatalf("one-sided, but allowed: %+v\n%s", f, text)
			}
		}
	}
}

// nodeOf returns the ID of the node that an end inside is part of.
func nodeOf(g *Graph, e model.End) string {
	if e.Namespace == "" {
		return "unmanaged@" + e.Device
	}
	name, _, _ := strings.Cut(e.Namespace, "/")
	return name
}

// compareOutside compares what a namespace may exchange with other machines
// and device namespaces.
func compareOutside(t *rapid.T, p *model.Policy, g *Graph, f model.Flow, h model.Hook, text string) {
	us, them := f.From, f.To.Local()
	if h == model.Accept {
		us, them = f.To, f.From.Local()
	}
	n := p.Namespace(us.Namespace)
	// The nodes outside that have the address, or elsewhere where none has it.
	mine := make(map[string]bool)
	for _, r := range n.Rules(h) {
		for _, peer := range r.Peers {
			if (peer.Kind == model.PeerAddress || peer.Kind == model.PeerGroup) && normal(p.PeerAddresses(peer, n)).holds(them) {
				mine[peer.String()] = true
			}
		}
	}
	if len(mine) == 0 {
		mine["elsewhere"] = true
	}
	d := model.Decide(p, f)
	covering := 0
	for _, e := range g.Edges {
		ours, other := e.From, e.To
		if h == model.Accept {
			ours, other = e.To, e.From
		}
		if ours == n.Name && mine[other] && slices.ContainsFunc(e.Flows, func(flow Flow) bool { return covers(&flow, f, d) }) {
			covering++
		}
	}
	if want := len(mine); d.Allowed() != (covering == want) || !d.Allowed() && covering > 0 {
		t.Fatalf("%d of %d edges cover %+v, of which Decide says %+v\n%s", covering, want, f, d, text)
	}
}

func hasPort(ports Ports, port uint16) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(r model.PortRange) bool { return r.Contains(port) })
}

func covers(flow *Flow, f model.Flow, d model.Decision) bool {
	bindable := d.FromBind.Action == model.Allow && d.ToBind.Action == model.Allow
	if flow.Audit {
		bindable = !d.FromBind.Refuses() && !d.ToBind.Refuses()
	}
	return bindable && slices.Contains(flow.Protocols, f.Protocol) && hasPort(flow.Ports, f.To.Address.Port()) &&
		(len(flow.FromAddresses) == 0 || flow.FromAddresses.holds(f.From.Address.Addr())) &&
		(len(flow.ToAddresses) == 0 || flow.ToAddresses.holds(f.To.Address.Addr()))
}

func drawAddress(t *rapid.T, v6 bool) netip.Addr {
	a, b := rapid.IntRange(0, 3).Draw(t, "a"), rapid.IntRange(0, 255).Draw(t, "b")
	local := rapid.IntRange(0, 4).Draw(t, "loopback") == 0
	switch {
	case v6 && local:
		return netip.MustParseAddr("::1")
	case v6:
		s := netip.MustParseAddr("2001:db8::").As16()
		s[5], s[15] = byte(a), byte(b)
		return netip.AddrFrom16(s)
	case local:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(a), byte(b)})
}

func TestNormal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []model.AddressRange
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			a, b := drawAddress(t, false), drawAddress(t, false)
			if b.Less(a) {
				a, b = b, a
			}
			list = append(list, model.AddressRange{First: a, Last: b})
		}
		set, rest := normal(list), without([]Ranges{normal(list)})
		probe := drawAddress(t, rapid.Bool().Draw(t, "v6"))
		want := slices.ContainsFunc(list, func(r model.AddressRange) bool { return r.Contains(probe) })
		if set.holds(probe) != want || rest.holds(probe) == want {
			t.Fatalf("%v: normal %v, without %v, %v", list, set, rest, probe)
		}
	})
}
