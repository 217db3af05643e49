package flowset

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// pointOf returns the coordinates of a flow for a hook of one of its ends.
func pointOf(u *universe, h model.Hook, proto model.Protocol, us, them model.End, port uint16) [dims]Point {
	index := 0
	for i, p := range model.Protocols {
		if p == proto {
			index = i
		}
	}
	local := addressPoint(us.Local())
	if h == model.Connect && !us.Address.Addr().IsValid() && local.Space != spaceUnknown {
		local.Space += spacePicked4 - space4
	}
	at := [dims]Point{dimProtocol: {Lo: uint64(index)}, dimLocal: local, dimPort: {Lo: uint64(port)}}
	if h == model.Bind {
		if a := us.Address.Addr(); !a.IsValid() || a.IsUnspecified() {
			at[dimLocal] = Point{}
		} else {
			at[dimLocal] = addressPoint(a)
		}
		return at
	}
	at[dimPeer], at[dimAddress] = Point{Lo: uint64(u.classOf(us, them, proto))}, addressPoint(them.Local())
	return at
}

// TestClausesDecide holds clauses, and the diagrams made of them, against
// model.Decide.
func TestClausesDecide(t *testing.T) {
	policies := modeltest.YAML(modeltest.Usual)
	rapid.Check(t, func(t *rapid.T) {
		p := modeltest.Parse(t, policies.Draw(t, "policy"))
		w := newWorld(p)
		n := &p.SocketNamespaces[rapid.IntRange(0, len(p.SocketNamespaces)-1).Draw(t, "namespace")]
		h := rapid.SampledFrom(model.Hooks[:]).Draw(t, "hook")
		u := newUniverse(n.Device, n.Name, h, w)
		clauses := w.clauses(u, h, n)
		s := newSpace(domain(h, u))
		d := s.diagram(clauses, func(c clause) int { return c.label })
		boxes := s.boxes(d, func(int) bool { return true })
		for range 20 {
			f := modeltest.Flow(p).Draw(t, "flow")
			us := model.End{Namespace: n.Name, Device: n.Device, Address: f.From.Address, Picked: f.From.Picked}
			if n.Each != "" {
				us.Namespace += "/1"
			}
			if h == model.Accept {
				us.Address = netip.AddrPortFrom(f.To.Address.Addr(), f.To.Address.Port())
				f.To = us
			} else {
				f.From = us
			}
			var v model.Verdict
			var at [dims]Point
			switch h {
			case model.Bind:
				v = model.DecideBind(p, us.Namespace, f.Protocol, us.Address)
				at = pointOf(u, h, f.Protocol, us, model.End{}, us.Address.Port())
			case model.Connect:
				v = model.Decide(p, f).Connect
				at = pointOf(u, h, f.Protocol, f.From, f.To, f.To.Address.Port())
			default:
				v = model.Decide(p, f).Accept
				at = pointOf(u, h, f.Protocol, f.To, f.From, f.To.Address.Port())
			}
			want := labelAllow
			if v.Action == model.Deny {
				want = labelOf(v.Error)
			}
			inBoxes, in := 0, 0
			for _, b := range boxes {
				if b.contains(at) {
					inBoxes++
					in = b.Label
				}
			}
			if inBoxes != 1 {
				t.Fatalf("%s %v %v: in %d boxes", h, f, at, inBoxes)
			}
			first := firstOf(clauses, at)
			rule := 0
			if v.Rule != nil {
				rule = v.Rule.Index
			}
			unnamed := first.label == labelUnnamed && (v.Error == model.EACCES || v.Error == model.EADDRINUSE)
			if first.label != in || in != want && !unnamed || first.rule != rule {
				t.Fatalf("%s %+v: Decide says %s %s rule %d; the clause says %d rule %d, the box %d", h, f, v.Action, v.Error, rule, first.label, first.rule, in)
			}
		}
	})
}

func firstOf(clauses []clause, at [dims]Point) clause {
	for _, c := range clauses {
		if c.box.contains(at) {
			return c
		}
	}
	return clause{label: -2}
}
