package flowset

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// seen returns a flow as a policy sees it: sockets of a namespace that it does
// not have in their device namespace are unmanaged.
func seen(p *model.Policy, f model.Flow) model.Flow {
	for _, e := range []*model.End{&f.From, &f.To} {
		if n := p.Namespace(e.Namespace); e.Namespace != "" && (n == nil || n.Device != e.Device) {
			e.Namespace = ""
		}
	}
	return f
}

func outcome(v model.Verdict) model.Errno {
	if v.Refuses() {
		return v.Error
	}
	return ""
}

// drawPair draws two policies: the second an edited copy, or another one.
func drawPair(t *rapid.T) (a, b *model.Policy) {
	policies := modeltest.YAML(modeltest.Usual)
	text := policies.Draw(t, "policy")
	other := text
	if rapid.IntRange(0, 4).Draw(t, "another") == 0 {
		other = policies.Draw(t, "other")
	}
	return modeltest.Parse(t, text), modeltest.Parse(t, modeltest.Edited(other).Draw(t, "edited"))
}

// TestDifferencesAreExact compares what Decide says by two policies with the
// boxes in which they are said to differ, hook by hook.
func TestDifferencesAreExact(t *testing.T) {
	differ, same := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPair(t)
		c := newComparison(a, b)
		for range 20 {
			f := modeltest.Flow(rapid.SampledFrom([]*model.Policy{a, b}).Draw(t, "of")).Draw(t, "flow")
			first, last := model.Decide(a, seen(a, f)), model.Decide(b, seen(b, f))
			for _, x := range []struct {
				h        model.Hook
				a, b     model.Verdict
				bindA    model.Verdict // what becomes of the bind before
				bindB    model.Verdict
				us, them model.End
				port     uint16
			}{
				{model.Bind, first.FromBind, last.FromBind, first.FromBind, last.FromBind, f.From, model.End{}, f.From.Address.Port()},
				{model.Connect, first.Connect, last.Connect, first.FromBind, last.FromBind, f.From, f.To, f.To.Address.Port()},
				{model.Bind, first.ToBind, last.ToBind, first.ToBind, last.ToBind, f.To, model.End{}, f.To.Address.Port()},
				{model.Accept, first.Accept, last.Accept, first.ToBind, last.ToBind, f.To, f.From, f.To.Address.Port()},
			} {
				if x.us.Device == "" || x.us.Namespace == "" || x.h == model.Accept && !x.them.Local().IsValid() {
					continue
				}
				s := subject{device: x.us.Device}
				s.name, _, _ = strings.Cut(x.us.Namespace, "/")
				u, boxes := c.differences(s, x.h)
				at := pointOf(u, x.h, f.Protocol, x.us, x.them, x.port)
				if x.h != model.Bind && !c.bindable(s).Contains(at[dimLocal]) {
					if !x.bindA.Refuses() || !x.bindB.Refuses() {
						t.Fatalf("%s of %+v: the address can be bound", x.h, f)
					}
					continue
				}
				in := 0
				for _, box := range boxes {
					if !box.contains(at) {
						continue
					}
					in++
					p := pairOf(box.Label)
					if got := [2]model.Errno{errnoOf(p.a), errnoOf(p.b)}; got != [2]model.Errno{outcome(x.a), outcome(x.b)} {
						t.Fatalf("%s of %v: the box says %v, Decide %q and %q", x.h, f, got, outcome(x.a), outcome(x.b))
					}
				}
				if differs := outcome(x.a) != outcome(x.b); differs != (in == 1) || in > 1 {
					t.Fatalf("%s of %+v (%v): Decide says %q and %q, it is in %d of %d boxes", x.h, f, at, outcome(x.a), outcome(x.b), in, len(boxes))
				} else if differs {
					differ++
				} else {
					same++
				}
			}
		}
	})
	t.Logf("%d answers differ, %d are the same", differ, same)
	if differ == 0 || same == 0 {
		t.Error("nothing was compared")
	}
}

// TestBoxesAreMerged looks for two boxes that could be one.
func TestBoxesAreMerged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newComparison(drawPair(t))
		for _, s := range c.subjects() {
			for _, h := range model.Hooks {
				_, boxes := c.differences(s, h)
				for i := range boxes {
					for j := range boxes[:i] {
						alike := 0
						for d := range boxes[i].Box {
							if boxes[i].Box[d].Equal(boxes[j].Box[d]) {
								alike++
							}
						}
						if boxes[i].Label == boxes[j].Label && alike >= dims-1 {
							t.Fatalf("%s %s: %v and %v are one box", s.name, h, boxes[i], boxes[j])
						}
						if _, overlap := boxes[i].intersect(&boxes[j].Box); overlap {
							t.Fatalf("%s %s: %v and %v overlap", s.name, h, boxes[i], boxes[j])
						}
					}
				}
			}
		}
	})
}

// TestPolicyIsLikeItself finds nothing between a policy and itself.
func TestPolicyIsLikeItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := modeltest.Parse(t, modeltest.YAML(modeltest.Usual).Draw(t, "policy"))
		c := newComparison(p, p)
		for _, s := range c.subjects() {
			for _, h := range model.Hooks {
				if _, boxes := c.differences(s, h); len(boxes) > 0 {
					t.Fatalf("%s %s: %v", s.name, h, boxes)
				}
			}
		}
	})
}
