package graph

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

const livePolicy = `apiVersion: sockns/v1
groups:
  corp: [10.0.0.0/8]
socketNamespaces:
  web:
    members: [{cgroup: /web}]
    connect:
      - {protocol: tcp, ports: 5432, to: db}
      - {protocol: tcp, ports: 6379, to: [cache, db]}
    accept:
      - {protocol: tcp, ports: 80, from: any}
  db:
    members: [{cgroup: /db}]
    accept:
      - {protocol: tcp, ports: [5432, 6379], from: [web, user]}
      - {action: deny, from: corp}
  cache:
    members: [{cgroup: /cache}]
    accept:
      - {protocol: tcp, ports: 6379, from: web}
  user:
    each: /user/u*
    connect:
      - {protocol: tcp, ports: 5432, to: db}
`

func TestLive(t *testing.T) {
	p := modeltest.Parse(t, livePolicy)
	g := Build(p)
	now := time.Unix(1000, 0).UTC()
	refusal := func(namespace string, h model.Hook, words, peer, address string, port uint16, count uint64) Refusal {
		r := Refusal{Namespace: namespace, Hook: h, Words: words, Peer: peer, Protocol: model.TCP, Port: port, Count: count, Last: now}
		if address != "" {
			r.Address = netip.MustParseAddr(address)
		}
		return r
	}
	g.SetLive(p, Live{At: now, Decisions: map[string]uint64{
		"web connect#1": 5, "web connect#2": 100, "db accept#1": 40, "cache accept#1": 7, "user connect#1": 1, "web accept#1": 9,
	}}, []Refusal{
		refusal("cache", model.Accept, "default", "db", "127.0.0.1", 6379, 3),
		refusal("cache", model.Accept, "default", "db", "10.1.1.1", 6379, 2),
		refusal("db", model.Accept, "may not accept from corp", "", "10.1.2.3", 5432, 4),
		refusal("db", model.Accept, "may accept once", "unmanaged", "127.0.0.1", 5432, 6),
		refusal("user/1", model.Connect, "default", "", "192.0.2.1", 25, 7),
		refusal("user/2", model.Connect, "default", "", "192.0.2.2", 25, 1),
		refusal("web", model.Accept, "default", "", "127.0.0.1", 80, 8), // the kernel did not tell whose it was
		refusal("gone", model.Accept, "default", "", "192.0.2.1", 80, 9),
	})
	var got []string
	for _, e := range g.Edges {
		line := e.From + ">" + e.To
		if e.Hits != nil {
			line += " " + e.Hits.Words()
		}
		for i := range e.Refused {
			line += ", " + e.Refused[i].Words()
		}
		if e.Named() {
			got = append(got, line)
		}
	}
	slices.Sort(got)
	want := []string{
		"corp>db, tcp/5432 refused 4 times by db accept#2",
		"db>cache, tcp/6379 refused 5 times by cache accept default",
		"elsewhere>web at most 9 times",
		"unmanaged@host>db, tcp/5432 refused 6 times by a former rule of db",
		"user>db 1 time",
		"user>elsewhere, tcp/25 refused 8 times by user connect default",
		"web>cache 7 times",
		"web>db at most 40 times",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if g.Live.Unplaced != 17 {
		t.Errorf("%d without an edge", g.Live.Unplaced)
	}
	for _, text := range []string{g.DOT(), g.Mermaid(), fmt.Sprint(g.Select(Selection{}).Edges)} {
		if !strings.Contains(text, "refused") && !strings.Contains(text, "Refused") && !strings.Contains(text, "cache accept default") {
			t.Errorf("no refusals in\n%s", text)
		}
	}
}
