package bench

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sockns/sockns/explain"
	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
)

// meaningSizes are how many namespaces the policies have whose whole meaning is
// asked for.
var meaningSizes = []int{10, 100, 1000}

// withBinds returns the text of a policy of n namespaces, all different, each
// with a port of its own to bind.
func withBinds(n int) string {
	var b strings.Builder
	port := 1024
	for _, line := range strings.SplitAfter(policyText(n, n), "\n") {
		if strings.HasPrefix(line, "    connect:") {
			fmt.Fprintf(&b, "    bind: [{protocol: tcp, ports: %d}]\n", port)
			port = 1024 + (port-1023)%60000
		}
		b.WriteString(line)
	}
	return b.String()
}

// edited returns the text with the first many of what was replaced.
func edited(text, old, new string, many int) string { return strings.Replace(text, old, new, many) }

// BenchmarkExplain answers one question about a policy that is loaded; the
// listener is the last namespace.
func BenchmarkExplain(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("namespaces=%d", n), func(b *testing.B) {
			p := parsePolicy(b, withBinds(n))
			words := fmt.Sprintf("n00000 connect n%05d tcp/9000", n-1)
			for b.Loop() {
				q, err := p.ParseQuestion(words)
				if err != nil {
					b.Fatal(err)
				}
				explain.Explain(p, q)
			}
		})
	}
}

// BenchmarkCompare compares a policy by meaning with itself, with a copy in
// which ten rules differ, with one that has a bind rule more, which gives all
// others another errno at its port, and with one in which every namespace
// differs.
func BenchmarkCompare(b *testing.B) {
	for _, n := range meaningSizes {
		text := withBinds(n)
		p := parsePolicy(b, text)
		for _, k := range []struct {
			name string
			with *model.Policy
		}{
			{"same", parsePolicy(b, text)},
			{"ten-rules", parsePolicy(b, edited(text, `ports: "8000-8080"`, `ports: "8000-8081"`, 10))},
			{"a-bind", parsePolicy(b, edited(text, "bind: [{protocol: tcp, ports: 1024}]", "bind: [{protocol: tcp, ports: [1024, 80]}]", 1))},
			{"every-namespace", parsePolicy(b, edited(text, `ports: "8000-8080"`, `ports: "8000-8081"`, -1))},
		} {
			b.Run(fmt.Sprintf("change=%s/namespaces=%d", k.name, n), func(b *testing.B) {
				changes := 0
				for b.Loop() {
					changes = len(flowset.Compare(p, k.with))
				}
				b.ReportMetric(float64(changes), "changes")
			})
		}
	}
}

// withHub returns the same text with a rule more in each namespace, by which it
// connects to the last one, and one there that accepts them all.
func withHub(n int) string {
	hub := fmt.Sprintf("n%05d", n-1)
	text := strings.ReplaceAll(withBinds(n), "    connect:\n", "    connect:\n      - {protocol: tcp, ports: 9999, to: "+hub+"}\n")
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%05d", i)
	}
	return text + "      - {protocol: tcp, ports: 9999, from: [" + strings.Join(names, ", ") + "]}\n"
}

// BenchmarkLint looks for what a policy says in vain: in one where each
// namespace has rules of its own, and in one where all connect to the last too.
func BenchmarkLint(b *testing.B) {
	for _, n := range meaningSizes {
		for _, k := range []struct{ name, text string }{{"each", withBinds(n)}, {"hub", withHub(n)}} {
			b.Run(fmt.Sprintf("policy=%s/namespaces=%d", k.name, n), func(b *testing.B) {
				files := []model.File{{Name: "bench.yaml", Data: []byte(k.text)}}
				p := parsePolicy(b, k.text)
				found := 0
				for b.Loop() {
					found = len(lint.Check(p, files))
				}
				b.ReportMetric(float64(found), "findings")
			})
		}
	}
}
