package flowset

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// TestEndsMeet compares what is said of the two ends of flows with what Decide
// says: drawn flows that happen have to be known, and of what is said to happen
// there has to be one that does.
func TestEndsMeet(t *testing.T) {
	happened, met, never := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := drawEnforced(t)
		lists := NewLists(p)
		for range 30 {
			f := modeltest.Flow(p).Draw(t, "flow")
			from, to := p.Namespace(f.From.Namespace), p.Namespace(f.To.Namespace)
			d := model.Decide(p, f)
			if from == nil || to == nil || !f.From.Local().IsValid() || !d.Allowed() {
				continue
			}
			happened++
			if r := d.Connect.Rule; r != nil && !lists.Connects(from, r.Index, to).Meet {
				t.Fatalf("%+v happens by rule %d of connect", f, r.Index)
			}
			if r := d.Accept.Rule; r != nil && !lists.Accepts(to, r.Index, from).Meet {
				t.Fatalf("%+v happens by rule %d of accept", f, r.Index)
			}
		}
		for i := range p.SocketNamespaces {
			for j := range p.SocketNamespaces {
				from, to := &p.SocketNamespaces[i], &p.SocketNamespaces[j]
				for _, r := range from.Connect {
					switch e := lists.Connects(from, r.Index, to); {
					case e.Meet:
						met++
						lists.mustMeet(t, from, to, r.Index, 0)
					case e.Decides:
						never++
					}
				}
				for _, r := range to.Accept {
					if lists.Accepts(to, r.Index, from).Meet {
						lists.mustMeet(t, from, to, 0, r.Index)
					}
				}
			}
		}
	})
	t.Logf("%d flows happened, %d pairs meet, %d do not", happened, met, never)
	if happened == 0 || met == 0 || never == 0 {
		t.Error("nothing was compared")
	}
}

// mustMeet looks for a flow by these rules (0: any).
func (a *Lists) mustMeet(t *rapid.T, from, to *model.SocketNamespace, connect, accept int) {
	for _, w := range a.ways(from, to) {
		f := model.Flow{From: model.End{Namespace: from.Name, Device: from.Device}, To: model.End{Namespace: to.Name, Device: to.Device}}
		if from.Each != "" {
			f.From.Namespace += "/1"
		}
		if to.Each != "" {
			f.To.Namespace += "/1"
			if from == to && !w.client.Contains(Point{Lo: classSelf}) && w.client.Equal(w.server) && !w.client.Equal(elsewhere) {
				f.To.Namespace = to.Name + "/2"
			}
		}
		for _, c := range crossings(crossings(a.connecting(from, connect, w), a.listening(to)), a.accepting(to, accept, w)) {
			f.Protocol = model.Protocols[c.protocols[0].First.Lo]
			client := addressOf(c.client[0].First)
			f.To.Address = netip.AddrPortFrom(addressOf(c.server[0].First), uint16(c.ports[0].First.Lo))
			var froms []model.End
			picks := f.From
			picks.Picked = client
			froms = append(froms, picks)
			for _, b := range a.binds(from) {
				e := f.From
				e.Address = netip.AddrPortFrom(client, uint16(b.Box[dimPort][0].First.Lo))
				froms = append(froms, e)
			}
			for _, e := range froms {
				g := f
				g.From = e
				d := model.Decide(a.c.a.policy, g)
				if d.Allowed() && index(d.Connect, connect) && index(d.Accept, accept) {
					return
				}
			}
		}
	}
	t.Fatalf("%s and %s (rules %d, %d): no flow happens", from.Name, to.Name, connect, accept)
}

func index(v model.Verdict, rule int) bool { return rule == 0 || v.Rule != nil && v.Rule.Index == rule }
