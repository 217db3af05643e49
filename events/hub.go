package events

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Hub hands each published event to all who subscribed to its kind. It never
// waits for them: one that is too slow loses events, and is told how many.
// The zero value is ready. Its methods are safe for concurrent use.
type Hub struct {
	mu            sync.Mutex
	sequence      uint64
	subscriptions []*Subscription
}

// ErrClosed is returned by [Subscription.Next] after [Subscription.Close].
var ErrClosed = errors.New("events: the subscription is closed")

// Publish numbers an event and hands it out. Subscribers share what it points
// to, which nobody may change any more.
func (h *Hub) Publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sequence++
	e.Sequence = h.sequence
	for _, s := range h.subscriptions {
		s.put(&e)
	}
}

// Subscribe returns a subscription to the events of some kinds (of all, if
// none is named) that are published from now on. Up to size of them, at
// least 2, wait for [Subscription.Next]. It must be closed.
func (h *Hub) Subscribe(size int, kinds ...Kind) *Subscription {
	s := &Subscription{
		hub: h, kinds: slices.Clone(kinds), ring: make([]Event, max(size, 2)),
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subscriptions = append(h.subscriptions, s)
	return s
}

// Subscription is a bounded queue of events.
type Subscription struct {
	hub    *Hub
	kinds  []Kind // nil: all
	ring   []Event
	first  int // of the ring
	n      int // that wait
	lost   Event
	wake   chan struct{}
	closed chan struct{}
}

// put queues an event, with what was lost before it. The hub is locked.
func (s *Subscription) put(e *Event) {
	if s.kinds != nil && !slices.Contains(s.kinds, e.Kind) {
		return
	}
	need := 1
	if s.lost.Lost > 0 {
		need = 2
	}
	if s.n+need > len(s.ring) {
		if s.lost.Lost == 0 {
			s.lost = Event{Time: e.Time, Kind: Lost, Message: "this listener was too slow"}
		}
		s.lost.Lost++
		return
	}
	if need == 2 {
		s.push(s.lost)
		s.lost = Event{}
	}
	s.push(*e)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscription) push(e Event) {
	s.ring[(s.first+s.n)%len(s.ring)] = e
	s.n++
}

// take returns the oldest event that waits.
func (s *Subscription) take() (Event, bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.n > 0 {
		e := s.ring[s.first]
		s.ring[s.first] = Event{}
		s.first = (s.first + 1) % len(s.ring)
		s.n--
		return e, true
	}
	if e := s.lost; e.Lost > 0 {
		s.lost = Event{}
		return e, true
	}
	return Event{}, false
}

// Next waits for the next event. Where events were lost, there is one of kind
// [Lost]. It returns the error of ctx, or ErrClosed. One goroutine at a time
// may call it.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok := s.take(); ok {
			return e, nil
		}
		select {
		case <-s.wake:
		case <-s.closed:
			return Event{}, ErrClosed
		case <-ctx.Done():
			if e, ok := s.take(); ok { // it came first
				return e, nil
			}
			return Event{}, ctx.Err()
		}
	}
}

// Close ends the subscription. It may be called once.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.subscriptions = slices.DeleteFunc(s.hub.subscriptions, func(o *Subscription) bool { return o == s })
	close(s.closed)
}
