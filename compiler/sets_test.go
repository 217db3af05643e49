package compiler

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/nft/simulate"
)

// TestShapes holds which shape is picked for lists of addresses: two rules are
// cheaper than any set, and a tree of few ranges dearer than rules.
func TestShapes(t *testing.T) {
	for _, c := range []struct {
		single, ranges int
		want           shape
	}{
		{0, 1, shape{}}, {2, 0, shape{}}, {3, 0, shape{}}, {3, 3, shape{}}, {0, 8, shape{}},
		{4, 0, shape{hash: true}}, {10000, 0, shape{hash: true}}, {500, 2, shape{hash: true}},
		{0, 12, shape{intervals: true}}, {0, 10000, shape{intervals: true}}, {2, 500, shape{intervals: true}},
	} {
		if got, cost := shapeOf(c.single, c.ranges, 1, 1, costLookup, 0); got != c.want {
			t.Errorf("%d single, %d ranges: %+v for %+v, want %+v", c.single, c.ranges, got, cost, c.want)
		}
	}
	if got, _ := shapeOf(100, 0, 1, 1, costLookup, 101); got != (shape{}) {
		t.Errorf("a set smaller than the least: %+v", got)
	}
}

func TestCostOfIntervalsGrows(t *testing.T) {
	last := 0
	for n := 0; n < 1<<20; n = n*3/2 + 1 {
		if c := costOfIntervals(n); c < last {
			t.Fatalf("%d intervals cost %d, fewer %d", n, c, last)
		} else {
			last = c
		}
	}
}

// memberOnly compiles a policy for one member at level 1 with the cgroup id 1.
func memberOnly(t interface{ Fatalf(string, ...any) }, passes Passes, text string) *Device {
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte("apiVersion: sockns/v1\n" + text)}})
	if diagnostics.HasErrors() {
		t.Fatalf("%v", diagnostics)
	}
	prog := CompileWith(p, Facts{
		Devices: map[string]DeviceFacts{model.HostDevice: {}},
		Members: []Member{{Namespace: "web", Path: "/web", ID: 1, Level: 1}},
	}, passes)
	return &prog.Devices[0]
}

// setsOf returns the sets of lists.
func setsOf(t *nft.Table) (sets []*nft.Set) {
	for i := range t.Sets {
		if isListSet(t.Sets[i].Name) {
			sets = append(sets, &t.Sets[i])
		}
	}
	return sets
}

// genList draws ranges of one family at the edges of the address space and of one another.
func genList(six bool) *rapid.Generator[[]model.AddressRange] {
	return rapid.Custom(func(t *rapid.T) []model.AddressRange {
		low, high, middle := netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("10.0.0.0")
		if six {
			low, high, middle = netip.IPv6Unspecified(), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), netip.MustParseAddr("2001:db8::ffff:fff0")
		}
		var list []model.AddressRange
		at := middle
		for range rapid.IntRange(1, 30).Draw(t, "ranges") {
			for range rapid.IntRange(1, 3).Draw(t, "gap") { // 1: adjacent
				at = at.Next()
			}
			first := at
			for range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 5, 300}).Draw(t, "size") {
				at = at.Next()
			}
			list = append(list, model.AddressRange{First: first, Last: at})
		}
		for _, edge := range []model.AddressRange{
			{First: low, Last: low}, {First: high, Last: high}, {First: low, Last: low.Next()}, {First: high.Prev(), Last: high},
			{First: low, Last: high}, {First: middle, Last: at},
		} {
			if rapid.IntRange(0, 5).Draw(t, "edge") == 5 {
				list = append(list, edge)
			}
		}
		return rapid.Permutation(list).Draw(t, "order")
	})
}

// TestListSets compiles lists with the pass and without, and asks for each address
// at and beside the edge of a range, and each port, what becomes of a packet there.
func TestListSets(t *testing.T) {
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		group := append(genList(false).Draw(t, "4"), genList(true).Draw(t, "6")...)
		var ports []model.PortRange
		for at := uint16(0); len(ports) < rapid.IntRange(1, 14).Draw(t, "ports"); {
			first := at + rapid.Uint16Range(1, 3).Draw(t, "gap")
			at = first + rapid.SampledFrom([]uint16{0, 0, 1, 3000}).Draw(t, "size")
			ports = append(ports, model.PortRange{First: first, Last: at})
		}
		if rapid.Bool().Draw(t, "top") {
			ports = append(ports, model.PortRange{First: 65535, Last: 65535})
		}
		protocols := rapid.SampledFrom([]string{"", "protocol: tcp, ", "protocol: [tcp, udp], "}).Draw(t, "protocols")
		text := fmt.Sprintf("groups: {listed: [%s]}\nsocketNamespaces:\n  web:\n    members: [{cgroup: /web}]\n    connect: [{%sports: [%s], to: listed}]\n",
			joinText(group, "'"), protocols, joinText(ports, ""))
		var tables []*simulate.Netfilter
		for _, passes := range []Passes{AllPasses, AllPasses &^ PassSets, PassSets} {
			d := memberOnly(t, passes, text)
			if passes == AllPasses {
				made += len(setsOf(d.Table))
			}
			tables = append(tables, simulate.New(d.Table))
		}
		decide := func(to netip.Addr, port uint16, proto uint8) {
			in := slices.ContainsFunc(group, func(r model.AddressRange) bool { return r.Contains(to) }) &&
				slices.ContainsFunc(ports, func(r model.PortRange) bool { return r.First <= port && port <= r.Last }) &&
				(proto == unix.IPPROTO_TCP || !strings.Contains(protocols, "tcp,") || strings.Contains(protocols, "udp"))
			for i, n := range tables {
				from := netip.MustParseAddr("192.0.2.1")
				if to.Is6() {
					from = netip.MustParseAddr("2001:db8:1::1")
				}
				p := simulate.Packet{Protocol: proto, Source: netip.AddrPortFrom(from, 50000), Dest: netip.AddrPortFrom(to, port), TCPFlags: tcpSYN, Out: 2, Cgroups: []uint64{1}}
				if got := n.Run(nft.HookOutput, &p).Kind == simulate.Accepted; got != in {
					t.Fatalf("table %d, %s port %d protocol %d: %v, want %v\n%s", i, to, port, proto, got, in, text)
				}
			}
		}
		for _, r := range group {
			for _, a := range []netip.Addr{r.First.Prev(), r.First, r.Last, r.Last.Next()} {
				if a.IsValid() {
					decide(a, ports[0].First, unix.IPPROTO_TCP)
				}
			}
		}
		for _, r := range ports {
			for _, port := range []uint16{r.First - 1, r.First, r.Last, r.Last + 1} {
				decide(group[0].First, port, unix.IPPROTO_TCP)
				decide(group[0].First, port, unix.IPPROTO_UDP)
			}
		}
	})
	if made < 10 {
		t.Errorf("%d sets in all: the lists are too short", made)
	}
}

func joinText[T fmt.Stringer](list []T, quote string) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = quote + e.String() + quote
	}
	return strings.Join(texts, ", ")
}

// manyPrefixes returns n prefixes that can't be merged.
func manyPrefixes(n int) string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("10.%d.%d.0/25", i/256, i%256)
	}
	return strings.Join(texts, ", ")
}

// TestListsShareSets holds that one list is one set wherever it is named, whatever else a
// rule names, and that a rule that had five hundred is one, counted and described once.
func TestListsShareSets(t *testing.T) {
	text := "groups: {listed: [" + manyPrefixes(500) + "], again: [" + manyPrefixes(500) + "]}\nsocketNamespaces:\n"
	for _, name := range []string{"web", "db", "mail"} {
		text += "  " + name + ":\n    members: [{cgroup: /" + name + "}]\n" +
			"    connect: [{to: listed}, {protocol: tcp, ports: 25, to: [again, 192.0.2.1, any]}]\n" +
			"    accept: [{action: deny, from: [listed, db]}, {from: [again, 192.0.2.7]}, {from: unmanaged}]\n"
	}
	d := memberOnly(t, AllPasses, text)
	sets := setsOf(d.Table)
	if len(sets) != 1 || !sets[0].Interval || len(sets[0].Elements) != 500 {
		t.Fatalf("%d sets of lists", len(sets))
	}
	for _, c := range d.Table.Chains {
		if len(c.Rules) > 16 {
			t.Errorf("chain %s has %d rules", c.Name, len(c.Rules))
		}
		named := 0
		for i := range c.Rules {
			if strings.HasPrefix(c.Rules[i].Comment, "connect 1: may connect listed") {
				named++
				setCounter(&c, i, 7)
			}
		}
		if named > 1 {
			t.Errorf("chain %s has the rule %d times", c.Name, named)
		}
	}
	for _, n := range Describe(d.Table) {
		for _, r := range n.Counters {
			if r.Hook == "connect" && r.Number == "1" && r.Packets != 2*7 { // in output, and in input from lo
				t.Errorf("%s: %+v", n.Name, r)
			}
		}
	}
}

// TestMostListSets holds that sets stay few however many lists there are, and
// that the longest get them.
func TestMostListSets(t *testing.T) {
	var b strings.Builder
	b.WriteString("socketNamespaces:\n")
	for i := range mostListSets + 100 {
		name := fmt.Sprintf("n%d", i)
		if i == 0 {
			name = "web"
		}
		fmt.Fprintf(&b, "  %s:\n    members: [{cgroup: /%s}]\n    connect: [{to: [", name, name)
		for j := range 5 + i%2 {
			fmt.Fprintf(&b, "10.%d.%d.%d, ", i/250, i%250, 2*j)
		}
		b.WriteString("10.255.0.0]}]\n")
	}
	sets := setsOf(memberOnly(t, AllPasses, b.String()).Table)
	if n := len(sets); n == 0 || n > mostListSets {
		t.Errorf("%d sets", n)
	}
	for _, s := range sets {
		if len(s.Elements) != 7 {
			t.Errorf("%s has %d elements, there are %d longer lists", s.Name, len(s.Elements), (mostListSets+100)/2)
		}
	}
}

// TestListNames holds that what a list is, and not who names it or in which order, names its set.
func TestListNames(t *testing.T) {
	of := func(list string) string {
		sets := setsOf(memberOnly(t, AllPasses, "socketNamespaces:\n  web:\n    members: [{cgroup: /web}]\n    connect: [{to: ["+list+"]}]\n").Table)
		if len(sets) != 1 {
			t.Fatalf("%s: %d sets", list, len(sets))
		}
		return sets[0].Name
	}
	one := of("10.0.0.1, 10.0.0.3, 10.0.0.5, 10.0.0.7")
	if other := of("10.0.0.5, 10.0.0.3, 10.0.0.7, 10.0.0.1, 10.0.0.3"); other != one {
		t.Errorf("%s and %s", one, other)
	}
	if other := of("10.0.0.1, 10.0.0.3, 10.0.0.5, 10.0.0.9"); other == one {
		t.Errorf("two lists are %s", one)
	}
}

// TestGroupEdited holds that a group that changes keeps the chains of the policies
// that name it: what asks for it is written anew in place, with another set, and
// counters go on where they were.
func TestGroupEdited(t *testing.T) {
	policy := func(last string) *nft.Table {
		return memberOnly(t, AllPasses, "groups: {listed: ["+manyPrefixes(500)+", "+last+"]}\nsocketNamespaces:\n"+
			"  web:\n    members: [{cgroup: /web}]\n    connect: [{action: deny, to: listed}, {to: any}]\n    accept: [{protocol: tcp, ports: 80, from: any}]\n"+
			"  db: {members: [{cgroup: /db}], accept: [{protocol: tcp, ports: 5432, from: web}]}\n").Table
	}
	old, new := policy("192.0.2.0/24"), policy("198.51.100.0/24")
	counts := func(t *nft.Table) (chain *nft.Chain, rule int) {
		for i := range t.Chains {
			for j := range t.Chains[i].Rules {
				if strings.HasPrefix(t.Chains[i].Rules[j].Comment, "connect 2") {
					return &t.Chains[i], j
				}
			}
		}
		return nil, 0
	}
	c, rule := counts(old)
	setCounter(c, rule, 41)
	Carry(old, new, nil, time.Now())
	if d, rule := counts(new); d.Name != c.Name || packetsOf(&d.Rules[rule]) != 41 {
		t.Errorf("%s counts %d, want %s and 41", d.Name, packetsOf(&d.Rules[rule]), c.Name)
	}
	tx := nft.Diff(old, new)
	rules, elements := 0, 0
	for _, b := range tx.Batches() {
		for _, op := range b.Ops {
			switch o := op.Object.(type) {
			case nft.RuleIn:
				rules++
				if op.Verb == nft.VerbAdd && !strings.Contains(o.Chain, "."+partConnect) && !strings.Contains(o.Chain, "."+partLocal) && !strings.Contains(o.Chain, "."+partSelf) {
					t.Errorf("a rule of %s", o.Chain)
				}
			case nft.ElementsIn:
				if elements += len(o.Elements); !isListSet(o.Set) {
					t.Errorf("elements of %s", o.Set)
				}
			}
		}
	}
	if tx.Rebuild || rules == 0 || rules > 12 || elements != 501 {
		t.Errorf("rebuilt %v, %d rules, %d elements:\n%s", tx.Rebuild, rules, elements, tx.String())
	}
	steps := Steps(old, new)
	if len(steps) != 1 || steps[0].Namespace != "web" || !strings.Contains(steps[0].Text, "addresses of a group") {
		t.Errorf("steps %v", steps)
	}
}
