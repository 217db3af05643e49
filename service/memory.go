package service

import (
	"runtime/debug"
	"time"

	"github.com/sockns/sockns/events"
)

// garbage is how much a heap may grow, in per cent of what is in use, before it
// is collected: between edits there is next to nothing to collect, so that half
// of Go's usual value costs nothing.
const garbage = 50

// calm is how long nothing big happens before memory is given back.
const calm = time.Second

// tidier gives back to the kernel what a load of the policy has left behind:
// some times what a controller needs while it only follows cgroups.
type tidier struct{ timer *time.Timer }

func newTidier() *tidier {
	debug.SetGCPercent(garbage)
	t := &tidier{time.AfterFunc(calm, debug.FreeOSMemory)}
	t.timer.Stop()
	return t
}

// observe waits for calm after an event that leaves much behind.
func (t *tidier) observe(e events.Event) {
	if e.Kind == events.Reconciled && e.Changed || e.Kind == events.PolicyLoaded || e.Kind == events.Started {
		t.timer.Reset(calm)
	}
}

func (t *tidier) stop() { t.timer.Stop() }
