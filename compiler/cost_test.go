package compiler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sockns/sockns/model"
)

func costsOf(t *testing.T, passes Passes, rules string) NamespaceCost {
	t.Helper()
	p := parse(t, []byte("apiVersion: sockns/v1\nsocketNamespaces:\n  web:\n    members: [{cgroup: /web}]\n"+rules+"  db: {members: [{cgroup: /db}]}\n"))
	prog := CompileWith(p, Facts{
		Devices: map[string]DeviceFacts{model.HostDevice: {}},
		Members: []Member{{Namespace: "web", Path: "/web", ID: 1, Level: 1}},
	}, passes)
	costs := prog.Devices[0].Costs()
	if len(costs) != 2 || costs[1].Name != "web" || !strings.HasPrefix(costs[1].Policy, sharedOwner+".") {
		t.Fatalf("%+v", costs)
	}
	return costs[1]
}

// TestCosts counts the longest way of a small policy by hand.
func TestCosts(t *testing.T) {
	c := costsOf(t, AllPasses, "    accept: [{protocol: tcp, ports: 80, from: any}]\n")
	// input has 6 rules, near 5 with two lookups; the list its rule; the question
	// to the other end 2 rules and a lookup, and what allows 6 with two updates.
	if c.Accept.Rules != 6+5+1+2+6 || c.Accept.Lookups != 2+1+2 {
		t.Errorf("accept: %+v", c.Accept)
	}
	for _, cost := range []Cost{c.Connect, c.Local, c.Accept} {
		if cost.Nanoseconds < cost.Rules*costRule+cost.Lookups*costLookup {
			t.Errorf("%+v is cheaper than its parts", cost)
		}
	}
}

// TestPassesPay holds that the passes that are about packets make the longest way shorter.
func TestPassesPay(t *testing.T) {
	var mixed, adjacent strings.Builder
	mixed.WriteString("    accept:\n")
	for i := range 4 {
		fmt.Fprintf(&mixed, "      - {protocol: tcp, ports: %d, from: 10.0.%d.0/24}\n      - {protocol: udp, ports: %d, from: 10.0.%d.0/24}\n", 80+i, i, 80+i, i)
	}
	adjacent.WriteString("    accept:\n      - {protocol: tcp, ports: [80, 81, 82, 83, 84], from: any}\n")
	listed := "    accept:\n      - {protocol: tcp, ports: 80, from: [" + manyPrefixes(300) + "]}\n"
	for _, c := range []struct {
		pass  Passes
		rules string
	}{
		{PassTransports, mixed.String()},
		{PassMerge, adjacent.String()},
		{PassSets, listed},
		{PassDead, "    accept:\n      - {from: any}\n      - {protocol: tcp, ports: 80, from: any}\n"},
	} {
		with, without := costsOf(t, AllPasses, c.rules).Accept, costsOf(t, AllPasses&^c.pass, c.rules).Accept
		if with.Nanoseconds >= without.Nanoseconds {
			t.Errorf("pass %d: %+v with, %+v without\n%s", c.pass, with, without, c.rules)
		}
	}
}

// TestLists holds what is said of the lists that are sets.
func TestLists(t *testing.T) {
	d := memberOnly(t, AllPasses, "socketNamespaces:\n  web:\n    members: [{cgroup: /web}]\n    connect: [{to: ["+manyPrefixes(300)+"]}]\n"+
		"    accept: [{protocol: tcp, ports: [1, 3, 5, 7, 9, 11, 13], from: any}]\n")
	lists := d.Lists()
	if len(lists) != 2 {
		t.Fatalf("%+v", lists)
	}
	ports, ranges := lists[0], lists[1]
	if ports.Elements != 7 || ports.Rules != 1 || !strings.Contains(ports.First, "accept 1: ") || ports.Nanoseconds != costRule+costConcat || ports.RulesNanoseconds != 7*(costRule+costCompare) {
		t.Errorf("%s", ports)
	}
	if ranges.Elements != 300 || ranges.Rules < 2 || !strings.Contains(ranges.First, "connect 1: ") || ranges.Nanoseconds >= ranges.RulesNanoseconds/10 || ranges.KiB >= ranges.RulesKiB {
		t.Errorf("%s", ranges)
	}
	if lists := memberOnly(t, AllPasses&^PassSets, "socketNamespaces:\n  web: {members: [{cgroup: /web}]}\n").Lists(); len(lists) != 0 {
		t.Errorf("%+v", lists)
	}
}
