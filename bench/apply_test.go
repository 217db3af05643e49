package bench

import (
	"testing"
	"time"

	"github.com/sockns/sockns/model"
)

// BenchmarkParse reads and checks a policy.
func BenchmarkParse(b *testing.B) {
	each(b, sizes[1:], func(b *testing.B, n, different int) {
		text := []byte(policyText(n, different))
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if _, diags := model.Parse([]model.File{{Name: "bench.yaml", Data: text}}); len(diags) > 0 {
				b.Fatal(diags)
			}
		}
	})
}

// BenchmarkApply makes the kernel enforce a policy that it knew nothing of:
// what `sockns apply` does.
func BenchmarkApply(b *testing.B) {
	each(b, sizes[1:], func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		host := openHost(b)
		text := policyText(n, different)
		var parse, plan, commit time.Duration
		for b.Loop() {
			began := time.Now()
			policy := parsePolicy(b, text)
			parsed := time.Now()
			p, err := host.Plan(policy)
			if err != nil {
				b.Fatal(err)
			}
			planned := time.Now()
			if err := host.Apply(p); err != nil {
				b.Fatal(err)
			}
			parse += parsed.Sub(began)
			plan += planned.Sub(parsed)
			commit += time.Since(planned)
			b.StopTimer()
			remove(b, host)
			b.StartTimer()
		}
		each := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(b.N) }
		b.ReportMetric(each(parse), "parse-ms/op")
		b.ReportMetric(each(plan), "plan-ms/op")
		b.ReportMetric(each(commit), "commit-ms/op")
	})
}

// BenchmarkPlan compares a policy that is in force with the kernel: what
// `sockns plan` does when nothing has changed.
func BenchmarkPlan(b *testing.B) {
	each(b, sizes[1:], func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		host := openHost(b)
		policy := parsePolicy(b, policyText(n, different))
		enforce(b, host, policy)
		defer remove(b, host)
		b.ReportAllocs()
		for b.Loop() {
			p, err := host.Plan(policy)
			if err != nil {
				b.Fatal(err)
			}
			if p.Changes() {
				b.Fatal("the policy is in force, but the plan has changes")
			}
		}
	})
}
