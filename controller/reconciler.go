package controller

import (
	"context"
	"sync"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/watch"
)

// DefaultResync is how often everything is compared although nothing said that
// it changed. It should never find anything.
const DefaultResync = 10 * time.Minute

// Reconciler keeps what the kernel enforces equal to what the policy files
// say. It is level-triggered: events only say where to look again. All its
// work happens in the goroutine that calls Run; others ask it
// ([Reconciler.State], [Reconciler.Reload]). While that one waits, who reads the
// notifications of cgroups follows them at once, see take.
type Reconciler struct {
	mu     sync.Mutex // of all that is below; Run has it unless it waits
	host   *Host
	paths  []string
	resync time.Duration
	tell   func(events.Event)
	begins func()

	good    *Loaded // the last policy without errors
	claims  *claims
	full    bool                   // the next sync also compares with what the policy does not name
	devices map[string]*membership // by name of the device namespace; nil while the kernel is not known to be equal
	present map[string]string      // identities of the device namespaces that are there, by name
	calls   compiler.CallIndex     // nil if the syscall tier is not in use
	inForce *inForce               // nil if devices is
	record  record
	// unannounced is what the safety resync met; nil: nothing.
	unannounced differences

	cgroups   *watch.Cgroups
	monitors  map[string]*monitor
	foreign   chan foreignChange
	behind    chan cause // the kernel may not have what devices says
	addresses chan struct{}
	known     map[string]string // local addresses at the last sync, see locals
	asks      chan func() error
	ended     chan struct{} // Run has returned
	trial     trial
	witness   *witness // while Run runs
}

// Options are what a [Reconciler] can be told.
type Options struct {
	Paths  []string      // policy files and directories
	Resync time.Duration // 0: DefaultResync
	// Tell is called with each event as it happens, by several goroutines, and
	// must not block. The first of kind [events.Started] says that the policy is enforced.
	Tell func(events.Event)
	// Begin, if not nil, is called when something begins that takes much memory
	// for a while: a policy is loaded, or everything compared. An event follows.
	Begin func()
	// Confirm has edits of the policy go back unless they are confirmed within
	// this time; zero keeps them. RuntimeDir is where the confirmation is
	// expected, the one of the lock; empty: [RuntimeDir]. Guard starts a process
	// that calls [Guard].
	Confirm    time.Duration
	RuntimeDir string
	Guard      func() error
}

// NewReconciler returns a reconciler for a host, whose user it is until Run returns.
func NewReconciler(host *Host, o Options) *Reconciler {
	if o.Resync == 0 {
		o.Resync = DefaultResync
	}
	if o.Tell == nil {
		o.Tell = func(events.Event) {}
	}
	if o.Begin == nil {
		o.Begin = func() {}
	}
	if o.RuntimeDir == "" {
		o.RuntimeDir = RuntimeDir()
	}
	return &Reconciler{
		host: host, paths: o.Paths, resync: o.Resync, tell: o.Tell, begins: o.Begin,
		present: make(map[string]string), record: record{started: time.Now()},
		monitors: make(map[string]*monitor), foreign: make(chan foreignChange, 64), behind: make(chan cause, 1),
		addresses: make(chan struct{}, 1), asks: make(chan func() error), ended: make(chan struct{}), trial: newTrial(o),
	}
}

// emit tells of an event.
func (r *Reconciler) emit(e events.Event) {
	e.Time = time.Now()
	r.record.note(e)
	r.tell(e)
}

// Run enforces the policy until ctx is done and leaves it enforced. It fails
// only if it can't begin: a policy that is broken at the start is an error,
// one that breaks later is told of and the last good one kept. It may be
// called once.
func (r *Reconciler) Run(ctx context.Context) error {
	defer close(r.ended)
	r.mu.Lock() // and after the end nobody follows any more
	files, err := watch.OpenFiles(r.paths...)
	if err != nil {
		return err
	}
	defer files.Close()
	netns, err := watch.OpenNetns()
	if err != nil {
		return err
	}
	defer netns.Close()
	if r.cgroups, err = watch.OpenCgroups(r.host.Cgroups, r.take); err != nil {
		return err
	}
	defer r.cgroups.Close()
	defer r.closeMonitors()
	r.witness = newWitness(r.tell)
	defer r.witness.close()
	confirmation, err := watch.OpenFiles(waiting.path(r.trial.dir))
	if err != nil {
		return err
	}
	defer confirmation.Close()
	if err := r.start(); err != nil {
		return err
	}
	ticker := time.NewTicker(r.resync)
	defer ticker.Stop()
	second := time.NewTimer(0)
	second.Stop()
	defer second.Stop()
	// The kernel does not announce that somebody detached a program.
	attached := time.NewTicker(attachedInterval)
	defer attached.Stop()
	retry := newBackoff()
	defer retry.stop()
	for {
		var work func() error
		r.mu.Unlock()
		select {
		case <-ctx.Done():
		case work = <-r.asks:
		case e := <-r.cgroups.Events():
			work = func() error { return r.cgroupsChanged(e) }
		case c := <-r.behind:
			work = func() error { return r.sync(c) }
		case <-files.Events():
			work = func() error { return r.reload("policy files changed") }
		case <-confirmation.Events():
			work = r.confirmed
		case <-r.trial.timer.C:
			work = r.confirmed
		case <-netns.Events():
			work = r.netnsChanged
		case f := <-r.foreign:
			work = func() error { return r.foreignChanged(f) }
		case <-r.addresses:
			work = r.addressesChanged
		case <-ticker.C:
			work = func() error {
				err := r.safetyLook()
				if err == nil && r.unannounced != nil {
					second.Reset(secondLook)
				}
				return err
			}
		case <-second.C:
			work = func() error { return r.sync(cause{why: "safety resync", safety: true}) }
		case <-attached.C:
			work = r.lookAfterCalls
		case <-retry.C():
			work = r.again
		}
		r.mu.Lock()
		if work == nil {
			r.emit(events.Event{Kind: events.Stopping, Message: "what is enforced stays"})
			return nil
		}
		reconciled := r.record.reconciled
		err := work()
		switch {
		case err != nil:
			r.emit(events.Event{Kind: events.Failed, Message: "could not reconcile: again in " + retry.next().String(), Error: err.Error()})
		case r.record.reconciled != reconciled && r.record.waiting == nil:
			retry.reset()
		}
	}
}
