package conform

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/nft"
)

const flowsEach = 200

// TestPacketsDoWhatThePolicySays holds the compiled rules against the model.
func TestPacketsDoWhatThePolicySays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { simulatePackets(t, compiler.AllPasses) })
}

// TestPassesChangeNoDecision holds what is compiled without some of the
// optimising passes against the same model.
func TestPassesChangeNoDecision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		simulatePackets(t, compiler.Passes(rapid.IntRange(0, int(compiler.AllPasses)).Draw(t, "passes")))
	})
}

func FuzzPackets(f *testing.F) {
	fuzz(f, func(t *rapid.T) { simulatePackets(t, compiler.AllPasses) })
}

func simulatePackets(t *rapid.T, passes compiler.Passes) {
	w := NewWorld(rand.New(rand.NewPCG(uint64(rapid.IntRange(0, 1<<20).Draw(t, "world")), 0)))
	text := modeltest.YAML(w.Options()).Draw(t, "policy")
	p, err := w.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	judge := &Judge{World: w, Policy: p}
	program := compiler.CompileWith(p, w.Facts(p, false), passes)
	s := w.Simulate(program)
	r := rand.New(rand.NewPCG(uint64(rapid.IntRange(0, 1<<20).Draw(t, "flows")), 0))
	aim := NewAim(judge, simulatedProtocols, false)
	told, refused := 0, 0
	s.Logged(func(prefix string) {
		if p, err := compiler.ParsePrefix(prefix); err == nil && p.Outcome == compiler.Refused {
			told++
		}
	})
	s.Trace(func(_, chain string, rule nft.Rule) {
		switch end := rule.Statements[len(rule.Statements)-1].(type) {
		case nft.Reject:
			refused++
		case nft.Verdict:
			if end.Kind == nft.VerdictDrop && !strings.HasPrefix(chain, "held_") {
				refused++
			}
		}
	})
	for i := range flowsEach {
		f := aim.Draw(r.IntN)
		told, refused = 0, 0
		if got, want := s.Connect(f, judge.Source(f)), judge.Packets(f); !slices.Contains(want.Outcomes, got) {
			t.Fatalf("flow %d: %s: %s, want %v\n%s\n%s\n%s", i, f, got, want.Outcomes, text, explainDecision(judge, f), traceOf(w, program, f, judge))
		}
		if told != refused {
			t.Fatalf("%s: %d refusals, %d told\n%s\n%s", f, refused, told, text, traceOf(w, program, f, judge))
		}
	}
}

var simulatedProtocols = []model.Protocol{
	model.TCP, model.UDP, model.TCP, model.UDP, model.TCP, model.UDP, model.SCTP, model.UDPLite, model.ICMP,
}

func explainDecision(j *Judge, f Flow) string {
	m := j.Flow(f)
	d := model.Decide(j.Policy, m)
	var b strings.Builder
	fmt.Fprintf(&b, "from %+v\nto %+v\n", m.From, m.To)
	for _, v := range []model.Verdict{d.FromBind, d.Connect, d.ToBind, d.Accept} {
		fmt.Fprintf(&b, "%s: %s %s %s audit %v", v.Hook, v.Action, v.Error, v.Reason, v.Audit)
		if v.Rule != nil {
			fmt.Fprintf(&b, " %s", v.Rule.Pos)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// traceOf returns the rules that a flow's packets take.
func traceOf(w *World, p *compiler.Program, f Flow, j *Judge) string {
	var b strings.Builder
	s := w.Simulate(p)
	s.Trace(func(device, chain string, rule nft.Rule) {
		fmt.Fprintf(&b, "%s %s:", device, chain)
		for _, s := range rule.Statements {
			fmt.Fprintf(&b, " %s", s)
		}
		b.WriteByte('\n')
	})
	s.Connect(f, j.Source(f))
	return b.String()
}
