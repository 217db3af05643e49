package bench

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sockns/sockns/model"
)

// sizes are the numbers of socket namespaces that a benchmark is run with.
var sizes = []int{10, 100, 1000, 10000}

// shared is the number of different policies where namespaces share them.
const shared = 100

// servicePort is the port that the last rule of each list allows.
const servicePort = 9000

// policyText is a policy of n socket namespaces with 8 rules each: ports, a
// range of them, prefixes, and peers by name. Only as many of them differ as
// different says. They live in the host device namespace.
func policyText(n, different int) string { return policyOf(n, different, "", memberPath) }

// policyOf is such a policy for the network namespace of a path, with the
// cgroups that member says.
func policyOf(n, different int, device string, member func(i int) string) string {
	var b strings.Builder
	b.Grow(1000 + 600*n)
	b.WriteString("apiVersion: sockns/v1\n")
	if device != "" {
		fmt.Fprintf(&b, "deviceNamespaces:\n  there: {path: %s}\n", device)
	}
	b.WriteString("socketNamespaces:\n")
	for i := range n {
		writeNamespace(&b, i, i%different, min(n, 10), device != "", member(i))
	}
	return b.String()
}

// policyFiles is the policy of policyText, divided into files.
func policyFiles(n, different, files int) []string {
	all := make([]string, files)
	for f := range all {
		var b strings.Builder
		b.WriteString("apiVersion: sockns/v1\nsocketNamespaces:\n")
		for i := f * n / files; i < (f+1)*n/files; i++ {
			writeNamespace(&b, i, i%different, min(n, 10), false, memberPath(i))
		}
		all[f] = b.String()
	}
	return all
}

// writeNamespace writes socket namespace i with variant v of the rules, whose
// peers by name are among the first few.
func writeNamespace(b *strings.Builder, i, v, few int, elsewhere bool, member string) {
	fmt.Fprintf(b, "  n%05d:\n", i)
	if elsewhere {
		b.WriteString("    deviceNamespace: there\n")
	}
	fmt.Fprintf(b, "    members: [{cgroup: %s}]\n", member)
	fmt.Fprintf(b, `    connect:
      - {protocol: tcp, ports: %[1]d, to: n%05[2]d}
      - {protocol: udp, ports: 53, to: 10.%[3]d.%[4]d.53}
      - {protocol: tcp, ports: "8000-8080", to: 10.%[3]d.%[4]d.0/24}
      - {protocol: [tcp, udp], ports: %[5]d, to: any}
    accept:
      - {protocol: tcp, ports: %[1]d, from: n%05[2]d}
      - {action: deny, protocol: tcp, ports: 22, from: 10.%[3]d.%[4]d.0/24}
      - {protocol: udp, ports: "6000-6010", from: 10.%[3]d.0.0/16}
      - {protocol: [tcp, udp], ports: %[5]d, from: any}
`, 10000+v, (v+1)%few, v/250%250, v%250, servicePort)
}

func parsePolicy(t testing.TB, text string) *model.Policy {
	t.Helper()
	p, diags := model.Parse([]model.File{{Name: "bench.yaml", Data: []byte(text)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return p
}

// kinds are the ways in which policies of many namespaces differ.
var kinds = []struct {
	name      string
	different func(n int) int
}{
	{"different", func(n int) int { return n }},
	{"shared", func(n int) int { return min(n, shared) }},
}

// each runs a benchmark for each size and kind of policy.
func each(b *testing.B, sizes []int, run func(b *testing.B, n, different int)) {
	for _, k := range kinds {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("policies=%s/namespaces=%d", k.name, n), func(b *testing.B) {
				run(b, n, k.different(n))
			})
		}
	}
}

// TestPolicy parses the policies of the benchmarks.
func TestPolicy(t *testing.T) {
	for _, different := range []int{20, 3} {
		p := parsePolicy(t, policyText(20, different))
		if len(p.SocketNamespaces) != 20 {
			t.Errorf("%d namespaces", len(p.SocketNamespaces))
		}
		for _, n := range p.SocketNamespaces {
			if len(n.Connect) != 4 || len(n.Accept) != 4 {
				t.Errorf("%s has %d and %d rules", n.Name, len(n.Connect), len(n.Accept))
			}
		}
	}
}
