package conform

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sockns/sockns/e2e/roottest"
)

var (
	flows    = flag.Int("flows", 24000, "decisions to make on the kernel, at least")
	seed     = flag.Uint64("seed", 0, "what is drawn; 0: another each time")
	shrink   = flag.Bool("shrink", true, "look for the least policy that shows a disagreement")
	steered  = flag.Bool("steered", false, "only rounds with steered listeners")
	parallel = flag.Int("machines", 8, "machines at the same time")
)

func TestMain(m *testing.M) {
	if Worker() {
		return
	}
	os.Exit(m.Run())
}

// TestKernelDoesWhatThePolicySays holds what real sockets get against the
// model. A disagreement becomes a scenario in the directory for temporary
// files, and its seed repeats it.
func TestKernelDoesWhatThePolicySays(t *testing.T) {
	roottest.Need(t)
	if *seed == 0 {
		*seed = uint64(rand.Uint32())
	}
	rounds := (*flows + policiesEach*flowsOfEach - 1) / (policiesEach * flowsOfEach)
	t.Logf("seed %d, %d rounds", *seed, rounds)
	var (
		total  = total{start: time.Now(), log: t.Logf, of: rounds * policiesEach * flowsOfEach, Tally: Tally{Seen: make(map[string]int)}}
		next   atomic.Int64
		failed atomic.Bool
		wait   sync.WaitGroup
	)
	for range min(*parallel, rounds) {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < rounds && !failed.Load(); i = int(next.Add(1)) - 1 {
				if *steered {
					i = 4*i + 3
				}
				play(t, i, &total, &failed)
			}
		})
	}
	wait.Wait()
	total.print()
	for _, kind := range slices.Sorted(maps.Keys(total.Seen)) {
		t.Logf("%9d %s", total.Seen[kind], kind)
	}
}

// play plays a round on a thread of its own, which ends with it.
func play(t *testing.T, index int, total *total, failed *atomic.Bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		d, err := Round{Seed: *seed, Index: index, Shrink: *shrink}.Play(total.add)
		if err != nil {
			failed.Store(true)
			t.Errorf("round %d of seed %d: %v", index, *seed, err)
			return
		}
		if d != nil {
			failed.Store(true)
			file := filepath.Join(os.TempDir(), fmt.Sprintf("sockns-conform-%d-%d.scn", *seed, index))
			if err := os.WriteFile(file, []byte(d.Scenario()), 0o644); err != nil {
				t.Error(err)
			}
			t.Errorf("round %d of seed %d: %s: %s, %s\nscenario %s:\n%s", index, *seed, d.Flow, d.Got, d.Expected, file, d.Scenario())
		}
	}()
	<-done
}

// total is what all rounds have come to.
type total struct {
	sync.Mutex
	Tally
	of    int
	log   func(string, ...any)
	start time.Time
	said  time.Time
}

func (s *total) add(t Tally) {
	s.Lock()
	defer s.Unlock()
	s.Decisions += t.Decisions
	s.Policies += t.Policies
	s.Again += t.Again
	for k, n := range t.Seen {
		s.Seen[k] += n
	}
	if time.Since(s.said) > 5*time.Second {
		s.said = time.Now()
		s.print()
	}
}

func (s *total) print() {
	took := time.Since(s.start)
	s.log("%d of %d decisions, %d policies, %.0f a second, %v, %d tried again",
		s.Decisions, s.of, s.Policies, float64(s.Decisions)/took.Seconds(), took.Round(time.Second), s.Again)
}
