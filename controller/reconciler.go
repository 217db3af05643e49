package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/watch"
)

// DefaultResync is how often everything is compared although nothing said that
// it changed. It should never find anything.
const DefaultResync = 10 * time.Minute

// Reconciler keeps what the kernel enforces equal to what the policy files
// say. It is level-triggered: events only say where to look again. All its
// work happens in the goroutine that calls Run.
type Reconciler struct {
	host   *Host
	paths  []string
	log    *slog.Logger
	resync time.Duration

	good    *Loaded // the last policy without errors
	broken  bool    // the files hold something else, which has errors
	claims  *claims
	devices map[string]*membership // by name of the device namespace
	calls   compiler.CallIndex     // nil if the syscall tier is not in use
	ready   func()

	cgroups  *watch.Cgroups
	monitors map[string]*monitor
	foreign  chan foreignChange
	ended    chan struct{} // Run has returned
	trial    trial
}

// Options are what a [Reconciler] can be told.
type Options struct {
	Paths  []string      // policy files and directories
	Log    *slog.Logger  // never nil
	Resync time.Duration // 0: DefaultResync
	Ready  func()        // called once, when the policy is enforced for the first time
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
	if o.Ready == nil {
		o.Ready = func() {}
	}
	if o.RuntimeDir == "" {
		o.RuntimeDir = RuntimeDir()
	}
	return &Reconciler{
		host: host, paths: o.Paths, log: o.Log, resync: o.Resync, ready: o.Ready,
		monitors: make(map[string]*monitor), foreign: make(chan foreignChange, 64),
		ended: make(chan struct{}), trial: newTrial(o),
	}
}

// Run enforces the policy until ctx is done and leaves it enforced. It fails
// only if it can't begin: a policy that is broken at the start is an error,
// one that breaks later is logged and the last good one kept.
func (r *Reconciler) Run(ctx context.Context) error {
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
	if r.cgroups, err = watch.OpenCgroups(r.host.Cgroups); err != nil {
		return err
	}
	defer r.cgroups.Close()
	defer r.closeMonitors()
	defer close(r.ended)
	record, err := watch.OpenFiles(waiting.path(r.trial.dir))
	if err != nil {
		return err
	}
	defer record.Close()
	if err := r.resumeTrial(); err != nil {
		return err
	}
	if err := r.load(); err != nil {
		if r.good == nil {
			return err
		}
		if err := r.adopt(r.good); err != nil {
			return err
		}
	}
	if err := r.sync("start"); err != nil {
		return err
	}
	r.ready()
	ticker := time.NewTicker(r.resync)
	defer ticker.Stop()
	// The kernel does not announce that somebody detached a program.
	attached := time.NewTicker(attachedInterval)
	defer attached.Stop()
	retry := newBackoff()
	defer retry.stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.cgroups.Events():
			err = r.cgroupChanged(e)
		case <-files.Events():
			err = r.reload()
		case <-record.Events():
			err = r.confirmed()
		case <-r.trial.timer.C:
			err = r.confirmed()
		case <-netns.Events():
			err = r.sync("network namespaces changed")
		case f := <-r.foreign:
			err = r.foreignChanged(f)
		case <-ticker.C:
			err = r.sync("safety resync")
		case <-attached.C:
			if lost := r.callsLost(); lost != nil {
				r.log.Warn("the syscall tier was tampered with", "what", lost)
				err = r.sync("the syscall tier was tampered with")
			}
		case <-retry.C():
			err = r.sync("retry")
		}
		if err != nil {
			r.log.Error("could not reconcile", "error", err, "retry", retry.next())
		} else {
			retry.reset()
		}
	}
}

// load reads the policy files. A policy with errors is logged, and the last
// good one stays.
func (r *Reconciler) load() error {
	l, err := Load(r.paths)
	if err == nil && l.Policy == nil {
		for _, d := range l.Diagnostics {
			r.log.Error("policy is broken", "at", d.Pos.String(), "message", d.Message)
		}
		err = errors.New("the policy has errors")
	}
	if err == nil {
		err = r.try(l)
	}
	r.broken = err != nil
	if err != nil {
		if r.good != nil {
			r.log.Error("the last good policy stays in force", "error", err)
		}
		return err
	}
	for _, d := range l.Diagnostics {
		r.log.Warn("policy", "at", d.Pos.String(), "message", d.Message)
	}
	return r.adopt(l)
}

// adopt makes a policy the good one, which the next sync enforces.
func (r *Reconciler) adopt(l *Loaded) error {
	r.good, r.claims, r.devices = l, claimsOf(l.Policy), nil
	return r.cgroups.Watch(l.Policy)
}

// reload reads the files again.
func (r *Reconciler) reload() error {
	err := r.settleTrial()
	if r.load() == nil || r.devices == nil {
		err = errors.Join(err, r.sync("policy files changed"))
	}
	return err
}

// confirmed looks whether an edit was confirmed, or whether its time is over.
func (r *Reconciler) confirmed() error {
	err := r.settleTrial()
	if r.trial.restore != nil {
		err = errors.Join(err, r.sync("not confirmed in time"))
	}
	return err
}

// sync compares everything and applies what differs. Device namespaces that
// come and go are met here.
func (r *Reconciler) sync(why string) error {
	began := time.Now()
	// Listen before looking: what others change from here on is announced.
	if _, err := r.host.openAll(r.good.Policy); err != nil {
		return err
	}
	r.watchDevices()
	plan, err := r.plan()
	if err != nil {
		return err
	}
	if plan.Changes() {
		if err := r.host.Apply(plan); err != nil {
			return err
		}
		r.logPlan(why, plan, time.Since(began))
	} else if r.devices == nil {
		r.log.Info("nothing to change", "why", why, "took", time.Since(began))
	}
	if err := r.host.openTier(plan); err != nil {
		return err
	}
	r.calls = plan.Calls.Index
	r.devices = make(map[string]*membership)
	for _, d := range plan.Program.Devices {
		if d.Index != nil {
			r.devices[d.Name] = newMembership(r.good.Policy, d.Name, d.Index, plan.Facts)
		}
	}
	return r.trial.restored()
}

// plan plans the policy; the first time also the removal of tables in device
// namespaces that it does not name any more.
func (r *Reconciler) plan() (*Plan, error) {
	if r.devices == nil {
		return r.host.Plan(r.good.Policy)
	}
	plan, _, err := r.host.planPolicy(r.good.Policy)
	return plan, err
}

func (r *Reconciler) logPlan(why string, plan *Plan, took time.Duration) {
	for _, d := range plan.Devices {
		if d.Change.Empty() {
			continue
		}
		const most = 20 // lines for one change
		for i, s := range d.Steps {
			if i == most {
				r.log.Info("and more", "device", d.Name, "steps", len(d.Steps)-most)
				break
			}
			r.log.Info("changed", "device", d.Name, "what", fmt.Sprintf("%s %s", s.Op, s))
		}
	}
	r.log.Info("reconciled", "why", why, "took", took)
}
