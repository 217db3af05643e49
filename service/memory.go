package service

import (
	"runtime/debug"
	"sync"
	"time"

	"github.com/sockns/sockns/events"
)

// How much the heap may grow, in per cent of what is in use, before it is
// collected: much while a policy is loaded or everything compared, little while
// cgroups are followed, which makes next to no garbage.
const (
	garbageBusy = 50
	garbageCalm = 20
)

// calm is how long nothing big happens before memory is given back.
const calm = time.Second

// tidier gives back to the kernel what loading a policy and comparing everything
// leave behind: some times what a controller needs while it only follows
// cgroups. It is safe for concurrent use.
type tidier struct {
	mu    sync.Mutex
	timer *time.Timer
	busy  bool
}

func newTidier() *tidier {
	t := &tidier{busy: true}
	debug.SetGCPercent(garbageBusy)
	t.timer = time.AfterFunc(calm, t.tidy)
	t.timer.Stop()
	return t
}

// begin says that something big begins.
func (t *tidier) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
	if !t.busy {
		t.busy = true
		debug.SetGCPercent(garbageBusy)
	}
}

// observe waits for calm after an event that ends something big.
func (t *tidier) observe(e events.Event) {
	switch e.Kind {
	case events.Reconciled, events.PolicyLoaded, events.PolicyBroken, events.Started, events.Failed:
		t.soon()
	}
}

// soon gives memory back when it stays calm.
func (t *tidier) soon() { t.timer.Reset(calm) }

func (t *tidier) tidy() {
	t.mu.Lock()
	if t.busy {
		t.busy = false
		debug.SetGCPercent(garbageCalm)
	}
	t.mu.Unlock()
	debug.FreeOSMemory()
}

func (t *tidier) stop() { t.timer.Stop() }
