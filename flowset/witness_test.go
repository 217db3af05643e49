package flowset

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
)

// TestBoxesHoldFlows looks for flows in each box in which two policies are said
// to differ: there is one, and what Decide says of each by both is what the box
// says.
func TestBoxesHoldFlows(t *testing.T) {
	boxes, flows := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := newComparison(drawPair(t))
		for _, s := range c.subjects() {
			for _, h := range model.Hooks {
				u, list := c.differences(s, h)
				in := bounds{h, c.possible(s, u), c.bindable(s)}
				for _, b := range list {
					boxes++
					found := c.flows(s, u, in, &b.Box)
					if len(found) == 0 {
						t.Fatalf("%s %s: no flow is in %v", s.name, h, b)
					}
					for _, f := range found {
						flows++
						p := pairOf(b.Label)
						if x, y := decided(c.a.policy, h, f), decided(c.b.policy, h, f); x != errnoOf(p.a) || y != errnoOf(p.b) {
							t.Fatalf("%s of %+v: the box says %q and %q, Decide %q and %q", h, f, errnoOf(p.a), errnoOf(p.b), x, y)
						}
					}
				}
			}
		}
	})
	t.Logf("%d flows in %d boxes", flows, boxes)
	if boxes == 0 {
		t.Error("no box was looked at")
	}
}

// decided returns what a hook of the acting end answers.
func decided(p *model.Policy, h model.Hook, f model.Flow) model.Errno {
	d := model.Decide(p, seen(p, f))
	return outcome(map[model.Hook]model.Verdict{model.Bind: d.FromBind, model.Connect: d.Connect, model.Accept: d.Accept}[h])
}

// flows returns flows of a box, at the corners of some of its parts.
func (c *comparison) flows(s subject, u *universe, in bounds, box *Box) []model.Flow {
	var corners [dims][]Point
	for d, set := range box {
		for _, r := range set[:min(3, len(set))] {
			corners[d] = append(corners[d], r.First, r.Last)
		}
		for _, r := range set[max(len(set)-1, 0):] {
			corners[d] = append(corners[d], r.Last)
		}
		if next, ok := set[0].First.next(); ok && d == dimPort && set.Contains(next) {
			corners[d] = append(corners[d], next) // 0 may be none
		}
		slices.SortFunc(corners[d], Point.compare)
		corners[d] = slices.Compact(corners[d])
	}
	var list []model.Flow
	var at [dims]Point
	var from func(d int)
	from = func(d int) {
		if d < dims {
			for _, at[d] = range corners[d] {
				from(d + 1)
			}
			return
		}
		var point Box
		for d := range at {
			point[d] = Set{{at[d], at[d]}}
		}
		if in.has(&point) {
			list = append(list, c.flowAt(s, u, in.hook, at))
		}
	}
	from(0)
	return list
}

// flowAt returns the flow at a point.
func (c *comparison) flowAt(s subject, u *universe, h model.Hook, at [dims]Point) model.Flow {
	f := model.Flow{Protocol: model.Protocols[at[dimProtocol].Lo]}
	us := model.End{Namespace: c.instance(s.name, "/1"), Device: s.device}
	port := uint16(at[dimPort].Lo)
	switch local := addressOf(at[dimLocal]); {
	case at[dimLocal].Space == spacePicked4 || at[dimLocal].Space == spacePicked6:
		us.Picked = local
	case h == model.Connect:
		us.Address = netip.AddrPortFrom(local, 0)
	default:
		us.Address = netip.AddrPortFrom(local, port)
	}
	them := c.peerOf(s, u, int(at[dimPeer].Lo))
	switch h {
	case model.Bind:
		f.From = us
	case model.Connect:
		them.Address = netip.AddrPortFrom(addressOf(at[dimAddress]), port)
		f.From, f.To = us, them
	default:
		them.Address = netip.AddrPortFrom(addressOf(at[dimAddress]), 0)
		f.From, f.To = them, us
	}
	return f
}

// instance names a socket namespace, of a template an instance.
func (c *comparison) instance(name, number string) string {
	for _, w := range [...]*world{c.a, c.b} {
		if n := w.names[name]; n != nil && n.Each != "" {
			return name + number
		}
	}
	return name
}

// peerOf returns an end of a class.
func (c *comparison) peerOf(s subject, u *universe, class int) model.End {
	e := model.End{Device: s.device}
	switch class {
	case classElsewhere:
		e.Device = ""
	case classSelf:
		e.Namespace = c.instance(s.name, "/1")
	case classSibling:
		e.Namespace = c.instance(s.name, "/2")
	case classUnmanaged:
	case classOther, classOtherFirst, classOtherLast:
		for _, other := range c.subjects() {
			inA, inB := c.a.resident(other.name, s.device) != nil, c.b.resident(other.name, s.device) != nil
			is := map[[2]bool]int{{true, true}: classOther, {true, false}: classOtherFirst, {false, true}: classOtherLast}[[2]bool{inA, inB}]
			if other.device == s.device && other.name != s.name && !slices.Contains(u.named, other.name) && is == class {
				e.Namespace = c.instance(other.name, "/1")
			}
		}
	default:
		e.Namespace = c.instance(u.named[class-classNamed], "/1")
	}
	return e
}
