package compiler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// tableOf compiles a policy for a host without addresses.
func tableOf(t *testing.T, policy string) *nft.Table {
	t.Helper()
	p, diags := model.Parse([]model.File{{Name: "p.yaml", Data: []byte("apiVersion: sockns/v1\nsocketNamespaces:\n" + policy)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	f := Facts{Devices: map[string]DeviceFacts{"host": {}}}
	for i, n := range p.SocketNamespaces {
		for _, m := range n.Members {
			f.Members = append(f.Members, Member{Namespace: n.Name, Path: m.Cgroup, ID: uint64(100 + i), Level: 1})
		}
	}
	return Compile(p, f).Devices[0].Table
}

// count has each rule count: the nth of the table n packets more.
func count(t *nft.Table) {
	n := uint64(0)
	for i := range t.Chains {
		for j := range t.Chains[i].Rules {
			if r := &t.Chains[i].Rules[j]; r.Comment != "" && counterOf(r) >= 0 {
				n++
				setCounter(&t.Chains[i], j, counted(r).Packets+n)
			}
		}
	}
}

// figuresText lists what namespaces have counted, by hook and name.
func figuresText(t *nft.Table) map[string]uint64 {
	all := make(map[string]uint64)
	for _, d := range Describe(t) {
		for _, c := range d.Counters {
			all[fmt.Sprintf("%s %s %s: %s", d.Name, c.Outcome, c.Hook, c.Name)] += c.Packets
		}
	}
	return all
}

const (
	carryWeb = `
  web:
    members: [{cgroup: /web}]
    connect:
      - {protocol: tcp, ports: 5432}
      - {action: deny, protocol: tcp, ports: 25, error: EACCES}
`
	carryDB = `
  db:
    members: [{cgroup: /db}]
    connect:
      - {protocol: tcp, ports: 5432}
      - {action: deny, protocol: tcp, ports: 25, error: EACCES}
`
)

// Rules keep what they counted when others come and go around them, move in
// the file, and when another namespace is edited; nothing is counted twice.
func TestCarry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old := tableOf(t, carryWeb+carryDB)
	count(old)
	before := figuresText(old)
	if before["web refuse connect: default"] == 0 || before["web refuse connect: default"] == before["db refuse connect: default"] {
		t.Fatalf("two namespaces with the same rules are counted together: %v", before)
	}
	for _, edit := range []struct {
		name, policy string
		gone         []string // that begin anew, or are no more
	}{
		{"nothing", carryWeb + carryDB, nil},
		{"lines move", "  # a line\n" + carryWeb + "# another" + carryDB, nil},
		{"the order of namespaces", carryDB + carryWeb, nil},
		{"a rule before", strings.Replace(carryWeb, "connect:\n", "connect:\n      - {protocol: udp, ports: 53}\n", 1) + carryDB, []string{"web allow connect: may connect any udp/53"}},
		{"a rule is another", strings.Replace(carryWeb, "5432", "5433", 1) + carryDB, []string{"web allow connect: may connect any tcp/5432", "web allow connect: may connect any tcp/5433"}},
		{"the default's errno", carryWeb + "    default: {connect: {action: deny, error: EHOSTUNREACH}}\n" + carryDB, nil},
		{"a namespace goes", carryWeb, []string{"db"}},
		{"audit", carryWeb + "    mode: audit\n" + carryDB, []string{"web refuse", "web audit"}},
	} {
		new := tableOf(t, edit.policy)
		Carry(old, new, nil, now)
		ours := func(all map[string]uint64) map[string]uint64 {
			kept := make(map[string]uint64)
			for name, n := range all {
				if !slices.ContainsFunc(edit.gone, func(p string) bool { return strings.HasPrefix(name, p) }) {
					kept[name] = n
				}
			}
			return kept
		}
		after := figuresText(new)
		if diff := cmp.Diff(ours(before), ours(after)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", edit.name, diff)
		}
		for name, n := range after {
			if slices.ContainsFunc(edit.gone, func(p string) bool { return strings.HasPrefix(name, p) }) && n != 0 {
				t.Errorf("%s: %s begins with %d", edit.name, name, n)
			}
		}
		// The kernel's copy of it carries on in the same way.
		again := tableOf(t, edit.policy)
		Carry(new, again, nil, now.Add(time.Hour))
		if tx := nft.Diff(new, again); !tx.Empty() || len(tx.Kept) > 0 {
			t.Errorf("%s: carried once more, it differs:\n%s%v", edit.name, tx.String(), tx.Kept)
		}
		if diff := cmp.Diff(after, figuresText(again)); diff != "" {
			t.Errorf("%s, once more:\n%s", edit.name, diff)
		}
	}
}

// A table that somebody removed comes back with what was known of it.
func TestCarryAfterFlush(t *testing.T) {
	policy := carryWeb + "    mode: audit\n" + carryDB
	old, began := tableOf(t, policy), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	Carry(nil, old, nil, began)
	count(old)
	new := tableOf(t, policy)
	Carry(nil, new, FiguresOf(old), began.Add(time.Hour))
	if diff := cmp.Diff(figuresText(old), figuresText(new)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	for _, d := range Describe(new) {
		if want := map[string]time.Time{"web": began}[d.Name]; !d.AuditSince.Equal(want) {
			t.Errorf("%s is in audit since %s, want %s", d.Name, d.AuditSince, want)
		}
	}
	// Half of it is there.
	half := tableOf(t, policy)
	Carry(old, half, nil, began)
	for i := range half.Chains {
		if strings.HasPrefix(half.Chains[i].Name, "web.") {
			half.Chains[i].Rules = nil
		}
	}
	new = tableOf(t, policy)
	Carry(half, new, FiguresOf(old), began.Add(time.Hour))
	if diff := cmp.Diff(figuresText(old), figuresText(new)); diff != "" {
		t.Errorf("half (-before +after):\n%s", diff)
	}
}

// Many namespaces share the chains of those with the same rules, and none gets
// the figures of another.
func TestCarryShared(t *testing.T) {
	var policy strings.Builder
	for i := range mostApart + 1 {
		fmt.Fprintf(&policy, "  n%d:\n    members: [{cgroup: /n%d}]\n    connect: [{protocol: tcp, ports: %d}]\n", i, i, 1000+i%2)
	}
	old := tableOf(t, policy.String())
	count(old)
	policies := make(map[string]int)
	for _, d := range Describe(old) {
		policies[d.Policy]++
	}
	if len(policies) != 2 {
		t.Fatalf("%d policies, want 2", len(policies))
	}
	same := tableOf(t, policy.String())
	Carry(old, same, nil, time.Now())
	if diff := cmp.Diff(figuresText(old), figuresText(same)); diff != "" {
		t.Errorf("nothing changed (-before +after):\n%s", diff)
	}
	alone := tableOf(t, policy.String()+"  own:\n    members: [{cgroup: /own}]\n    connect: [{protocol: tcp, ports: 1}]\n")
	Carry(old, alone, nil, time.Now())
	for name, n := range figuresText(alone) {
		if strings.HasPrefix(name, "own ") && n != 0 {
			t.Errorf("%s begins with %d", name, n)
		}
	}
}
