package bench

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
)

// cpu adds up the processor time of this process, which other work on the
// machine changes less than the time that passes.
type cpu struct{ user, system, user0, system0 time.Duration }

func usage() (user, system time.Duration) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0, 0
	}
	return time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
}

func (c *cpu) start() { c.user0, c.system0 = usage() }

func (c *cpu) stop() {
	user, system := usage()
	c.user += user - c.user0
	c.system += system - c.system0
}

func (c *cpu) report(b *testing.B) {
	b.ReportMetric(float64(c.user.Milliseconds())/float64(b.N), "user-ms/op")
	b.ReportMetric(float64(c.system.Milliseconds())/float64(b.N), "kernel-ms/op")
}

// BenchmarkParse reads and checks a policy.
func BenchmarkParse(b *testing.B) {
	each(b, sizes[1:], func(b *testing.B, n, different int) {
		text := []byte(policyText(n, different))
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if _, diags := model.Parse([]model.File{{Name: "bench.yaml", Data: text}}); diags.HasErrors() {
				b.Fatal(diags)
			}
		}
	})
}

// BenchmarkCold parses and compiles once, with the garbage of nothing else on the
// heap; what is taken from the system for it stays counted when it is free again.
func BenchmarkCold(b *testing.B) {
	each(b, sizes[3:], func(b *testing.B, n, different int) {
		files := []model.File{{Name: "bench.yaml", Data: []byte(policyText(n, different))}}
		runtime.GC()
		for b.Loop() {
			policy, diags := model.Parse(files)
			if diags.HasErrors() {
				b.Fatal(diags)
			}
			compiler.Compile(policy, everyMember(policy))
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapSys)/(1<<20), "heap-MiB")
	})
}

// everyMember are the facts of a host on which all members exist.
func everyMember(policy *model.Policy) compiler.Facts {
	facts := compiler.Facts{Devices: map[string]compiler.DeviceFacts{model.HostDevice: {}}}
	for i := range policy.SocketNamespaces {
		s := &policy.SocketNamespaces[i]
		facts.Members = append(facts.Members, compiler.Member{Namespace: s.Name, Path: s.Members[0].Cgroup, ID: uint64(1000 + i), Level: 2})
	}
	return facts
}

// BenchmarkCompile compiles a policy whose members all exist: what is pure of a plan.
func BenchmarkCompile(b *testing.B) {
	each(b, sizes[1:], func(b *testing.B, n, different int) {
		policy := parsePolicy(b, policyText(n, different))
		facts := everyMember(policy)
		b.ReportAllocs()
		for b.Loop() {
			compiler.Compile(policy, facts)
		}
	})
}

// BenchmarkChange compiles what one edited rule changes: what is pure of an edit
// that a controller puts in force, once for each tier.
func BenchmarkChange(b *testing.B) {
	each(b, sizes[1:], func(b *testing.B, n, different int) {
		files := make([]model.File, 0, 100)
		for i, text := range policyFiles(n, different, 100) {
			files = append(files, model.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
		}
		before, _, parsed := model.Reparse(files, nil)
		facts := everyMember(before)
		prog := compiler.Compile(before, facts)
		files[0].Data = []byte(strings.Replace(string(files[0].Data), "ports: 53,", "ports: 54,", 1))
		b.ReportAllocs()
		for b.Loop() {
			after, _, _ := model.Reparse(files, parsed)
			prog.CompileSyscalls(after, facts)
			if prog.Change(after, facts) == nil {
				b.Fatal("too much differs")
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
		var cpu cpu
		for b.Loop() {
			cpu.start()
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
			cpu.stop()
			b.StopTimer()
			remove(b, host)
			b.StartTimer()
		}
		each := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(b.N) }
		b.ReportMetric(each(parse), "parse-ms/op")
		b.ReportMetric(each(plan), "plan-ms/op")
		b.ReportMetric(each(commit), "commit-ms/op")
		cpu.report(b)
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
		var cpu cpu
		cpu.start()
		for b.Loop() {
			p, err := host.Plan(policy)
			if err != nil {
				b.Fatal(err)
			}
			if p.Changes() {
				b.Fatal("the policy is in force, but the plan has changes")
			}
		}
		cpu.stop()
		cpu.report(b)
	})
}
