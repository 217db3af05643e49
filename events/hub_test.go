package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drain returns all that waits, in short: "3 changed", "lost 2".
func drain(s *Subscription) []string {
	var list []string
	for {
		e, ok := s.take()
		switch {
		case !ok:
			return list
		case e.Kind == Lost:
			list = append(list, fmt.Sprintf("lost %d", e.Lost))
		default:
			list = append(list, fmt.Sprintf("%d %s", e.Sequence, e.Kind))
		}
	}
}

func TestHub(t *testing.T) {
	var hub Hub
	hub.Publish(Event{Kind: Started}) // before anybody listens
	all, some := hub.Subscribe(8), hub.Subscribe(8, Changed, Failed)
	defer some.Close()
	hub.Publish(Event{Kind: Reconciled})
	hub.Publish(Event{Kind: Changed})
	if diff := cmp.Diff([]string{"2 reconciled", "3 changed"}, drain(all)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"3 changed"}, drain(some)); diff != "" {
		t.Error(diff)
	}
	all.Close()
	hub.Publish(Event{Kind: Changed})
	if diff := cmp.Diff([]string{"4 changed"}, drain(some)); diff != "" {
		t.Error(diff)
	}
	if _, err := all.Next(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := some.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSlowSubscriber(t *testing.T) {
	var hub Hub
	s := hub.Subscribe(3)
	defer s.Close()
	publish := func(n int) {
		for range n {
			hub.Publish(Event{Kind: Changed})
		}
	}
	publish(5)
	if diff := cmp.Diff([]string{"1 changed", "2 changed", "3 changed", "lost 2"}, drain(s)); diff != "" {
		t.Error(diff)
	}
	// The gap is told where it is.
	publish(4)
	for range 2 {
		s.take()
	}
	publish(1)
	if diff := cmp.Diff([]string{"8 changed", "lost 1", "10 changed"}, drain(s)); diff != "" {
		t.Error(diff)
	}
}

// Whatever a listener and the hub do in turn, each event arrives in order or
// is counted as lost at its place.
func TestNothingIsLostInSilence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hub Hub
		s := hub.Subscribe(rapid.IntRange(0, 5).Draw(t, "size"))
		defer s.Close()
		published, heard := uint64(0), uint64(0)
		hear := func() bool {
			e, ok := s.take()
			if !ok {
				return false
			}
			if e.Kind == Lost {
				heard += e.Lost
			} else if heard++; e.Sequence != heard {
				t.Fatalf("event %d is heard as number %d", e.Sequence, heard)
			}
			return true
		}
		for _, publish := range rapid.SliceOf(rapid.Bool()).Draw(t, "publish") {
			if publish {
				hub.Publish(Event{Kind: Changed})
				published++
			} else {
				hear()
			}
		}
		for hear() {
		}
		if heard != published {
			t.Fatalf("%d published, %d heard or told lost", published, heard)
		}
	})
}

func TestConcurrent(t *testing.T) {
	var hub Hub
	const publishers, each = 4, 500
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var listeners, senders sync.WaitGroup
	for _, size := range []int{1, 16, 4096} {
		s := hub.Subscribe(size)
		defer s.Close()
		listeners.Go(func() {
			for n := uint64(0); n < publishers*each; {
				e, err := s.Next(ctx)
				if err != nil {
					t.Errorf("after %d: %v", n, err)
					return
				}
				n += max(e.Lost, 1)
			}
		})
	}
	for range publishers {
		senders.Go(func() {
			for range each {
				hub.Publish(Event{Kind: Changed})
			}
		})
	}
	senders.Wait()
	listeners.Wait()
}

func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("subscribers=%d", n), func(b *testing.B) {
			var hub Hub
			for range n {
				defer hub.Subscribe(1024).Close()
			}
			e := Event{Kind: MemberJoined, Cgroup: "/web"}
			b.ReportAllocs()
			for b.Loop() {
				hub.Publish(e)
			}
		})
	}
}
