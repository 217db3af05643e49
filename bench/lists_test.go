package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// listSizes are how many prefixes the list of a rule has.
var listSizes = []int{10, 100, 1000, 10000}

// listings are the ways in which a list is compiled.
var listings = []struct {
	name   string
	passes compiler.Passes
}{
	{"as-compiled", compiler.AllPasses},
	{"a-rule-each", compiler.AllPasses &^ compiler.PassSets},
}

// listedGroup is a group of n prefixes, the last of which is the one of that number.
func listedGroup(n, last int) string {
	var b strings.Builder
	b.WriteString("groups:\n  listed:\n")
	for i := range n {
		if i == n-1 {
			i = last
		}
		fmt.Fprintf(&b, "    - %s/24\n", netip.AddrFrom4([4]byte{byte(11 + i>>15), byte(i >> 7), byte(i << 1), 0}))
	}
	return b.String()
}

// listPolicy is a policy of two namespaces, both of which deny such a list and
// allow the rest.
func listPolicy(n, last int) string { return listPolicyOf(n, last, "", memberPath) }

// listPolicyOf is such a policy for the network namespace of a path, with the
// cgroups that member says.
func listPolicyOf(n, last int, device string, member func(i int) string) string {
	var b strings.Builder
	b.WriteString("apiVersion: sockns/v1\n")
	if device != "" {
		fmt.Fprintf(&b, "deviceNamespaces:\n  there: {path: %s}\n", device)
	}
	b.WriteString(listedGroup(n, last) + "socketNamespaces:\n")
	for i, name := range []string{"server", "client"} {
		fmt.Fprintf(&b, "  %s:\n    members: [{cgroup: %s}]\n", name, member(i))
		if device != "" {
			b.WriteString("    deviceNamespace: there\n")
		}
		for _, hook := range []string{"connect: [{action: deny, to", "accept: [{action: deny, from"} {
			_, side, _ := strings.Cut(hook, "deny, ")
			fmt.Fprintf(&b, "    %s: listed}, {protocol: [tcp, udp], ports: %d, %s: any}]\n", hook, servicePort, side)
		}
	}
	return b.String()
}

// listTable compiles such a policy.
func listTable(b *testing.B, n, last int, passes compiler.Passes) *nft.Table {
	b.Helper()
	haveCgroups(b, 2)
	facts := compiler.Facts{Devices: map[string]compiler.DeviceFacts{model.HostDevice: {}}}
	for i, name := range []string{"server", "client"} {
		var st syscall.Stat_t
		if err := syscall.Stat(cgroups.tree.Dir(memberPath(i)), &st); err != nil {
			b.Fatal(err)
		}
		facts.Members = append(facts.Members, compiler.Member{Namespace: name, Path: memberPath(i), ID: st.Ino, Level: 2})
	}
	return compiler.CompileWith(parsePolicy(b, listPolicy(n, last)), facts, passes).Devices[0].Table
}

// listLanes makes a lane for each length of a list and each way to compile it, and
// one without a table.
func listLanes(b *testing.B) []*lane {
	b.Helper()
	none := openLane(b, "none", 0)
	none.by = "prefixes=0"
	lanes := []*lane{none}
	for _, way := range listings {
		for _, n := range listSizes {
			l := openLane(b, way.name, 0)
			l.by = fmt.Sprintf("prefixes=%d", n)
			l.load(b, listTable(b, n, n-1, way.passes))
			if way.passes != compiler.AllPasses {
				l.slow = 1 + n/50
			}
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// BenchmarkListDatagram sends datagrams past a list of prefixes, which both ends
// deny: none of them has the address.
func BenchmarkListDatagram(b *testing.B) {
	reportTimes(b, listLanes(b), datagrams, memberPath(0), memberPath(1))
}

// BenchmarkListConnect makes TCP connections past the same lists.
func BenchmarkListConnect(b *testing.B) {
	reportTimes(b, listLanes(b), connects, memberPath(0), memberPath(1))
}

// BenchmarkListApply commits a table with such a list, and then one whose list has
// another last prefix.
func BenchmarkListApply(b *testing.B) {
	for _, way := range listings {
		for _, n := range listSizes {
			b.Run(fmt.Sprintf("rules=%s/prefixes=%d", way.name, n), func(b *testing.B) {
				table, edited := listTable(b, n, n-1, way.passes), listTable(b, n, n, way.passes)
				var apply, edit, memory []float64
				for b.Loop() {
					var conn *nft.Conn
					openLane(b, way.name, 0).do(b, func() (err error) {
						conn, err = nft.Open(-1)
						return err
					})
					commit := func(old, new *nft.Table) float64 {
						began := time.Now()
						if err := conn.Apply(nft.Diff(old, new)); err != nil {
							b.Fatal(err)
						}
						return float64(time.Since(began).Microseconds()) / 1000
					}
					before := kernelMemory(b)
					apply = append(apply, commit(nil, table))
					memory = append(memory, kernelMemory(b)-before)
					edit = append(edit, commit(table, edited))
					commit(edited, nil)
					conn.Close()
				}
				b.ReportMetric(0, "ns/op")
				for unit, all := range map[string][]float64{"apply-ms": apply, "edit-ms": edit, "kernel-KiB": memory} {
					slices.Sort(all)
					b.ReportMetric(all[len(all)/2], unit)
				}
			})
		}
	}
}

// BenchmarkListEdit has all namespaces name one list of 10,000 prefixes, one of
// which is replaced: what is compiled, compared and committed, and how many rules
// are among it.
func BenchmarkListEdit(b *testing.B) {
	const prefixes = 10000
	each(b, sizes[1:3], func(b *testing.B, n, different int) {
		table := func(last int) *nft.Table {
			text := strings.ReplaceAll(policyText(n, different), "    connect:\n", "    connect:\n      - {action: deny, to: listed}\n")
			policy := parsePolicy(b, text+listedGroup(prefixes, last))
			return compiler.Compile(policy, everyMember(policy)).Devices[0].Table
		}
		old, new := table(prefixes-1), table(prefixes)
		var conn *nft.Conn
		openLane(b, "sockns", n).do(b, func() (err error) {
			conn, err = nft.Open(-1)
			return err
		})
		defer conn.Close()
		if err := conn.Apply(nft.Diff(nil, old)); err != nil {
			b.Fatal(err)
		}
		rules := 0
		var took []float64
		for b.Loop() {
			began := time.Now()
			tx := nft.Diff(old, new)
			if err := conn.Apply(tx); err != nil {
				b.Fatal(err)
			}
			took = append(took, float64(time.Since(began).Microseconds())/1000)
			rules = 0
			for _, batch := range tx.Batches() {
				for _, op := range batch.Ops {
					if _, is := op.Object.(nft.RuleIn); is {
						rules++
					}
				}
			}
			old, new = new, old
		}
		slices.Sort(took)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(took[len(took)/2], "edit-ms")
		b.ReportMetric(float64(rules), "rules")
	})
}

// lookupsEach is how often a table of BenchmarkLookup has its rule.
const lookupsEach = 20

// BenchmarkLookup measures what one rule costs that does not match: the figures of
// compiler/prices.go, by which the shapes of lists are picked, are such ones.
func BenchmarkLookup(b *testing.B) {
	haveCgroups(b, 2)
	address := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(11 + i>>15), byte(i >> 7), byte(i << 1), 0})
	}
	ip := func(a netip.Addr) nft.Value { return nft.Value{Type: nft.TypeIPv4, Addr: a} }
	port := func(n int) nft.Value { return nft.Value{Type: nft.TypeInetService, Num: uint64(n)} }
	lastOf := func(a netip.Addr) netip.Addr { o := a.As4(); o[3] = 255; return netip.AddrFrom4(o) }
	drop := nft.Verdict{Kind: nft.VerdictDrop}
	dest, dport, l4 := nft.Field{Kind: nft.FieldDest4}, nft.Field{Kind: nft.FieldDport}, nft.Field{Kind: nft.FieldL4Proto}
	type kind struct {
		name string
		n    int
		set  *nft.Set
		rule []nft.Statement
	}
	kinds := []kind{
		{"nothing", 0, nil, nil},
		{"an address", 0, nil, []nft.Statement{nft.MatchAddress{First: address(0), Last: address(0)}, drop}},
		{"a prefix", 0, nil, []nft.Statement{nft.MatchAddress{First: address(0), Last: address(0).Next()}, drop}},
		{"a range of addresses", 0, nil, []nft.Statement{nft.MatchAddress{First: address(0), Last: address(5)}, drop}},
		{"a port", 0, nil, []nft.Statement{nft.MatchPort{First: 80, Last: 80}, drop}},
	}
	inSet := func(name string, n int, set nft.Set, key ...nft.Field) {
		set.Name = "s"
		for _, f := range key {
			set.Key = append(set.Key, f.Type())
		}
		kinds = append(kinds, kind{name, n, &set, []nft.Statement{nft.MatchSet{Key: key, Set: "s"}, drop}})
	}
	for _, n := range []int{4, 100, 10000} {
		var single, pairs nft.Set
		for i := range n {
			single.Elements = append(single.Elements, nft.Element{Key: []nft.Value{ip(address(i))}})
			pairs.Elements = append(pairs.Elements, nft.Element{Key: []nft.Value{{Type: nft.TypeInetProto, Num: unix.IPPROTO_UDP}, port(20000 + i)}})
		}
		inSet("addresses", n, single, dest)
		inSet("transports and ports", n, pairs, l4, dport)
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64, 100, 1000, 10000, 100000} {
		set := nft.Set{Interval: true}
		for i := range n {
			set.Elements = append(set.Elements, nft.Element{Key: []nft.Value{ip(address(i)), ip(lastOf(address(i)))}})
		}
		inSet("ranges", n, set, dest)
	}
	var lanes []*lane
	for _, k := range kinds {
		l := openLane(b, k.name, 0)
		t := &nft.Table{Name: "t", Chains: []nft.Chain{{Name: "output", Base: &nft.Base{Hook: nft.HookOutput}}}}
		if k.set != nil {
			t.Sets = []nft.Set{*k.set}
		}
		for range lookupsEach {
			if k.rule != nil {
				t.Chains[0].Rules = append(t.Chains[0].Rules, nft.Rule{Statements: k.rule})
			}
		}
		l.load(b, t)
		lanes = append(lanes, l)
	}
	times := datagrams(b, lanes, memberPath(0), memberPath(1))
	middle := func(i int) float64 { return times[i][len(times[i])/2] }
	for i, k := range kinds[1:] {
		b.Run(fmt.Sprintf("match=%s/elements=%d", strings.ReplaceAll(k.name, " ", "-"), k.n), func(b *testing.B) {
			for b.Loop() {
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric((middle(i+1)-middle(0))/lookupsEach, "ns/rule")
		})
	}
}
