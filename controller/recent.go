package controller

import (
	"slices"
	"sync"

	"github.com/sockns/sockns/events"
)

// How many decisions are remembered of each socket namespace, and of how many.
const (
	recentEach       = 32
	recentNamespaces = 1024
)

// recent remembers the last decisions about each socket namespace. It is safe
// for concurrent use.
type recent struct {
	mu   sync.Mutex
	last map[string][]events.Event // oldest first, by what Event.Namespace says
	used []string                  // the namespaces, the one with the oldest news first
}

func newRecent() *recent { return &recent{last: make(map[string][]events.Event)} }

// keep remembers a decision that was told and that enforcing comes to, under
// each namespace whose it may be.
func (r *recent) keep(e events.Event) {
	if e.Decided.Behind || e.Decided.Count == 0 {
		return
	}
	names := []string{e.Namespace}
	if e.Namespace == "" {
		names = e.Decided.OneOf
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		list, known := r.last[name]
		if known {
			r.used = slices.DeleteFunc(r.used, func(n string) bool { return n == name })
		} else if len(r.used) >= recentNamespaces {
			delete(r.last, r.used[0])
			r.used = slices.Delete(r.used, 0, 1)
		}
		if len(list) >= recentEach {
			list = slices.Delete(list, 0, 1)
		}
		r.last[name] = append(list, e)
		r.used = append(r.used, name)
	}
}

// process returns the namespace of the last decision about a process.
func (r *recent) process(pid uint32) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Backward(r.used) {
		for _, e := range slices.Backward(r.last[name]) {
			if p := e.Decided.Process; p != nil && p.PID == pid {
				return name, true
			}
		}
	}
	return "", false
}

// of returns what is remembered of a namespace or instance, oldest first.
func (r *recent) of(name string) []events.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.last[name])
}
