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
	w := NewWorld(rand.New(rand.NewPCG(uint64(rapid.IntRange(0, 1<<20).Draw(t, "world")), 0)))
	text := modeltest.YAML(w.Options()).Draw(t, "policy")
	p, err := w.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	judge := &Judge{World: w, Policy: p, Calls: true}
	s := w.Applications(p, true)
	r := rand.New(rand.NewPCG(uint64(rapid.IntRange(0, 1<<20).Draw(t, "flows")), 0))
	aim := NewAim(judge, simulatedProtocols, true)
	for i := range flowsEach {
		f := aim.Draw(r.IntN)
		if !visible(f.Protocol) && !f.OnlyBinds() {
			continue // what calls answer for these on the kernel is not known
		}
		if got, want := s.Try(f), judge.Seen(f); !slices.Contains(want.Outcomes, got) {
			t.Fatalf("flow %d: %s: %s, want %v\n%s\n%s", i, f, got, want.Outcomes, text, explainDecision(judge, f))
		}
	}
}
