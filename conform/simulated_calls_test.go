package conform

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model/modeltest"
)

// TestCallsDoWhatThePolicySays holds what calls answer, by the values of the
// syscall tier, and then packets, against the model.
func TestCallsDoWhatThePolicySays(t *testing.T) {
	rapid.Check(t, simulateCalls)
}

func FuzzCalls(f *testing.F) { fuzz(f, simulateCalls) }

// fuzz begins with inputs that are long enough to draw policies from.
func fuzz(f *testing.F, check func(*rapid.T)) {
	for i := range 8 {
		b := make([]byte, 1<<16)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(b)
		f.Add(b)
	}
	f.Fuzz(rapid.MakeFuzz(check))
}

func simulateCalls(t *rapid.T) {
	number := uint64(rapid.IntRange(0, 1<<20).Draw(t, "world"))
	w := NewWorld(rand.New(rand.NewPCG(number, 0)))
	if number%2 == 1 {
		w = NewFreshWorld(rand.New(rand.NewPCG(number, 0)))
	}
	text := modeltest.YAML(w.Options()).Draw(t, "policy")
	p, err := w.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	judge := &Judge{World: w, Policy: p, Calls: true}
	s := w.Applications(p, true)
	r := rand.New(rand.NewPCG(uint64(rapid.IntRange(0, 1<<20).Draw(t, "flows")), 0))
	if w.Fresh {
		said := s.Listen()
		for i, want := range judge.Listen() {
			if !slices.Contains(want.Outcomes, said[i]) {
				t.Fatalf("%s: %s, want %v\n%s", w.Binds[i].bind(), said[i], want.Outcomes, text)
			}
		}
	}
	for i, f := range draw(NewAim(judge, simulatedProtocols, true), r, flowsEach) {
		if !visible(f.Protocol) && !f.OnlyBinds() {
			continue // what calls answer for these on the kernel is not known
		}
		if got, want := s.Try(f), judge.Seen(f); !slices.Contains(want.Outcomes, got) {
			t.Fatalf("flow %d: %s: %s, want %v\n%s\n%s", i, f, got, want.Outcomes, text, explainDecision(judge, f))
		}
	}
}
