package flowset

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// TestAmbiguous compares the namespaces that are called ambiguous with what
// DecideBind says: at drawn places, and at those that are said to be so.
func TestAmbiguous(t *testing.T) {
	options := modeltest.Usual
	options.Ports = []uint16{80, 81, 443}
	options.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("2001:db8::1")}
	ambiguous, clear := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := modeltest.Parse(t, modeltest.YAML(options).Draw(t, "policy"))
		allowed := func(n *model.SocketNamespace, proto model.Protocol, at netip.AddrPort) int {
			name := n.Name
			if n.Each != "" {
				name += "/1"
			}
			if v := model.DecideBind(p, name, proto, at); v.Action == model.Allow && v.Rule != nil {
				return v.Rule.Index
			}
			return 0
		}
		list := NewLists(p).Ambiguous()
		for _, x := range list {
			at := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), x.Ports[0].First)
			if len(x.Addresses) > 0 {
				at = netip.AddrPortFrom(x.Addresses[0].First, at.Port())
			}
			first, second := allowed(x.First, x.Protocols[0], at), allowed(x.Second, x.Protocols[0], at)
			if first != x.FirstRule || second != x.SecondRule || x.First.Device != x.Second.Device {
				t.Fatalf("%s and %s at %s %s by rules %d and %d: DecideBind says %d and %d", x.First.Name, x.Second.Name, x.Protocols[0], at, x.FirstRule, x.SecondRule, first, second)
			}
		}
		for range 20 {
			f := modeltest.Flow(p).Draw(t, "flow")
			at := netip.AddrPortFrom(f.To.Address.Addr(), max(1, f.To.Address.Port()))
			var before []*model.SocketNamespace // may bind it
			for i := range p.SocketNamespaces {
				n := &p.SocketNamespaces[i]
				if at.Addr().IsLoopback() || !f.Protocol.HasPorts() || allowed(n, f.Protocol, at) == 0 {
					continue
				}
				met := slices.ContainsFunc(before, func(m *model.SocketNamespace) bool { return m.Device == n.Device })
				if met && !slices.ContainsFunc(list, func(x Ambiguity) bool { return x.Second == n }) {
					t.Fatalf("%s may bind %s %s, as one before it: %+v", n.Name, f.Protocol, at, list)
				}
				if met {
					ambiguous++
				} else {
					clear++
				}
				before = append(before, n)
			}
		}
	})
	t.Logf("%d ambiguous, %d clear", ambiguous, clear)
	if ambiguous == 0 || clear == 0 {
		t.Error("nothing was compared")
	}
}
