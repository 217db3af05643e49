package page

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sockns/sockns/graph"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func liveOf(p *model.Policy, decisions map[string]uint64, refusals []graph.Refusal) *graph.Graph {
	g := graph.Build(p)
	for i := range refusals {
		r := &refusals[i]
		r.Last, r.Protocol = noon.Add(-time.Duration(i+1)*time.Minute), model.TCP
		if r.Words == "" {
			r.Words = "default"
		}
	}
	g.SetLive(p, graph.Live{At: noon, Since: noon.Add(-26 * time.Hour), Decisions: decisions}, refusals)
	return g
}

// liveShop is the shop with decisions as a controller counts them.
func liveShop(t *testing.T) *graph.Graph {
	return liveOf(shop(t), map[string]uint64{
		"web connect#1": 48211, "web connect#2": 12, "web accept#1": 291004, "api accept#1": 48190, "api connect#1": 48190, "api connect#2": 96004,
		"api connect#3": 1204, "api connect#4": 310, "worker connect#1": 907, "queue accept#1": 1217, "cache accept#1": 96004, "db accept#1": 51002,
		"worker connect#2": 2812, "admin connect#1": 3, "admin accept#1": 41, "admin accept default": 21, "db accept default": 3, "cache accept default": 118, "worker connect default": 2,
		"monitor connect#1": 720, "dns accept#1": 1301, "dns connect#1": 64,
	}, []graph.Refusal{
		{Namespace: "db", Hook: model.Accept, Peer: "admin", Port: 5432, Count: 3},
		{Namespace: "cache", Hook: model.Accept, Peer: "worker", Port: 6379, Count: 118},
		{Namespace: "worker", Hook: model.Connect, Address: netip.MustParseAddr("203.0.113.9"), Port: 25, Count: 2},
		{Namespace: "admin", Hook: model.Accept, Peer: "web", Port: 8080, Count: 21, Audit: true},
	})
}

// liveFleet is the fleet with decisions: the busier, the earlier in it.
func liveFleet(t *testing.T) *graph.Graph {
	p := modeltest.Parse(t, fleet())
	decisions := make(map[string]uint64)
	for i, r := range graph.Build(p).Rules {
		if r.Action == string(model.Allow) {
			decisions[r.ID] = uint64(i*7919%100003) / uint64(1+i%17)
		}
	}
	var refusals []graph.Refusal
	for i := range p.SocketNamespaces {
		name := p.SocketNamespaces[i].Name
		if app, ok := strings.CutSuffix(name, "-sync"); ok && i%4 == 0 {
			refusals = append(refusals, graph.Refusal{Namespace: app + "-cache", Hook: model.Accept, Peer: name, Port: 6379, Count: uint64(3 + i*31%900)})
			decisions[app+"-cache accept default"] += uint64(3 + i*31%900)
		}
	}
	return liveOf(p, decisions, refusals)
}
