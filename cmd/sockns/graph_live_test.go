package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/graph"
	"github.com/sockns/sockns/model"
)

const liveRules = `apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: /web}]
    connect:
      - {action: deny, ports: 5433, to: db}
      - {ports: 5432, to: db}
  blog:
    members: [{cgroup: /blog}]
    connect:
      - {action: deny, ports: 5433, to: db}
      - {ports: 5432, to: db}
  user:
    each: /user/u*
    connect: [{to: any}]
  db:
    members: [{cgroup: /db}]
    mode: audit
`

// TestDecisionsOfTheKernel: calls that were refused made no packets, those that
// went on did; namespaces with the same rules have one count.
func TestDecisionsOfTheKernel(t *testing.T) {
	p, _ := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(liveRules)}})
	count := func(hook, name string, o compiler.Outcome, packets, calls uint64) controller.RuleCount {
		return controller.RuleCount{Hook: hook, Name: name, Outcome: o, Packets: packets, Calls: calls}
	}
	status := &controller.Status{Devices: []controller.DeviceStatus{{Namespaces: []controller.NamespaceStatus{
		{Name: "blog", Counts: controller.Counts{Rules: []controller.RuleCount{
			count("connect", "may not connect db port 5433", compiler.Refused, 2, 30), count("connect", "may connect db port 5432", compiler.Allowed, 50, 0),
		}}},
		{Name: "web", Counts: controller.Counts{CountedUnder: "blog", Rules: []controller.RuleCount{
			count("connect", "may not connect db port 5433", compiler.Refused, 0, 4),
		}}},
		{Name: "user", Counts: controller.Counts{Rules: []controller.RuleCount{
			count("connect", "may connect any", compiler.Allowed, 9, 0), count("accept", "default", compiler.Refused, 1, 0), count("bind", "default", compiler.Allowed, 8, 0),
		}}},
		{Name: "user/1", Counts: controller.Counts{CountedUnder: "user", Rules: []controller.RuleCount{count("accept", "default", compiler.Refused, 0, 6)}}},
		{Name: "db", Counts: controller.Counts{Rules: []controller.RuleCount{
			count("accept", "default", compiler.Audited, 60, 55), count("accept", "may accept what was", compiler.Allowed, 1, 0),
		}}},
	}}}}
	decisions, shared := decisionsOf(p, status)
	want := map[string]uint64{
		"blog connect#1": 32, "blog connect#2": 50, "web connect#1": 6, "web connect#2": 50,
		"user connect#1": 9, "user accept default": 7, "db accept default": 60,
	}
	if diff := cmp.Diff(want, decisions); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"web", "blog"}, shared); diff != "" {
		t.Error(diff)
	}
}

// TestCountersAreKnown: each rule that a table counts is one of the graph,
// however long its words are.
func TestCountersAreKnown(t *testing.T) {
	text := strings.Replace(liveRules, "[{to: any}]", `
      - {to: ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.9", "10.0.0.10"], protocol: tcp, ports: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]}
      - {action: deny, error: EACCES, audit: true, to: 10.9.9.9}
      - {log: true, to: 10.9.9.8}`, 1)
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}})
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	f := compiler.Facts{Devices: map[string]compiler.DeviceFacts{model.HostDevice: {}}}
	for i, name := range []string{"web", "blog", "db", "user/1"} {
		f.Members = append(f.Members, compiler.Member{Namespace: name, Path: "/" + name, ID: uint64(i + 1), Level: 1})
	}
	ids, seen := countedIDs(p), 0
	for _, d := range compiler.Describe(compiler.Compile(p, f).Devices[0].Table) {
		name, _, _ := strings.Cut(d.Name, "/")
		for _, c := range d.Counters {
			seen++
			if ids[counted{name, c.Hook, c.Name}] == "" {
				t.Errorf("%s: %s %q is unknown", name, c.Hook, c.Name)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d counters", seen)
	}
}

func TestRefusalsBetweenEnds(t *testing.T) {
	decided := func(hook string, change func(*events.Decided)) events.Event {
		d := &events.Decided{
			Action: model.Deny, Mode: model.Audit, Hook: hook, Protocol: model.TCP, Text: "default", Count: 3, Peer: "db",
			Source: netip.MustParseAddrPort("10.0.0.1:0"), Destination: netip.MustParseAddrPort("10.0.0.2:80"),
		}
		if change != nil {
			change(d)
		}
		return events.Event{Namespace: "web", Decided: d}
	}
	got := refusalsOf(&controller.Refusals{Refusals: []events.Event{
		decided("connect", nil),
		decided("accept", func(d *events.Decided) { d.Mode = model.Enforce }),
		decided("bind", nil),
		decided("accept", func(d *events.Decided) { d.Behind = true }),
		decided("accept", func(d *events.Decided) { d.Count = 0 }),
	}})
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	want := []graph.Refusal{
		{Namespace: "web", Hook: model.Connect, Words: "default", Peer: "db", Local: one, Address: two, Protocol: model.TCP, Port: 80, Audit: true, Count: 3},
		{Namespace: "web", Hook: model.Accept, Words: "default", Peer: "db", Local: two, Address: one, Protocol: model.TCP, Port: 80, Count: 3},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}
