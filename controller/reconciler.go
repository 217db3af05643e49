package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/nft"
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
}

// Options are what a [Reconciler] can be told.
type Options struct {
	Paths  []string      // policy files and directories
	Log    *slog.Logger  // never nil
	Resync time.Duration // 0: DefaultResync
	Ready  func()        // called once, when the policy is enforced for the first time
}

// NewReconciler returns a reconciler for a host, whose user it is until Run returns.
func NewReconciler(host *Host, o Options) *Reconciler {
	if o.Resync == 0 {
		o.Resync = DefaultResync
	}
	if o.Ready == nil {
		o.Ready = func() {}
	}
	return &Reconciler{
		host: host, paths: o.Paths, log: o.Log, resync: o.Resync, ready: o.Ready,
		monitors: make(map[string]*monitor), foreign: make(chan foreignChange, 64),
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
	if err := r.load(); err != nil {
		return err
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
			if r.load() == nil {
				r.devices = nil
				err = r.sync("policy files changed")
			}
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
	r.good, r.claims = l, claimsOf(l.Policy)
	return r.cgroups.Watch(l.Policy)
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
	return nil
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

// cgroupChanged brings one cgroup's elements up to date, or everything if one
// look can't tell.
func (r *Reconciler) cgroupChanged(e watch.Event) error {
	if e.Kind == watch.Lost {
		if e.Err != nil {
			r.log.Warn("cgroup events were lost", "error", e.Err)
		}
		return r.sync("cgroup events were lost")
	}
	name, device, sure := r.claims.of(e.Path)
	if !sure {
		return r.sync("cgroup " + e.Path)
	}
	for dev, m := range r.devices {
		claimed := name
		if dev != device {
			claimed = ""
		}
		batch, done, sure := m.look(e.Path, claimed, r.host.Cgroups)
		if !sure {
			return r.sync("cgroup " + e.Path)
		}
		if batch.Empty() {
			continue
		}
		if err := r.host.devices[dev].conn.Commit(batch); err != nil {
			r.log.Warn("an element could not be changed alone", "cgroup", e.Path, "error", err)
			return r.sync("cgroup " + e.Path)
		}
		before := m.members[e.Path]
		done()
		if err := r.callMember(before, m.members[e.Path], m.index); err != nil {
			r.log.Warn("the syscall tier could not follow", "cgroup", e.Path, "error", err)
			return r.sync("cgroup " + e.Path)
		}
		r.log.Debug("cgroup", "path", e.Path, "namespace", claimed, "device", dev)
	}
	return nil
}

// attachedInterval is how often the programs are looked after.
const attachedInterval = 500 * time.Millisecond

// callsLost returns what is wrong with the programs of the syscall tier, nil
// if nothing is.
func (r *Reconciler) callsLost() error {
	if r.host.tier == nil {
		return nil
	}
	return r.host.tier.Check()
}

// callMember tells the syscall tier that a cgroup left, joined, or both. A
// zero ID stands for no cgroup.
func (r *Reconciler) callMember(before, after compiler.Member, ix *compiler.Index) error {
	if r.host.tier == nil || r.calls == nil || before == after {
		return nil
	}
	if before.ID != 0 && before.ID != after.ID {
		if err := r.host.tier.Leave(before.ID); err != nil {
			return err
		}
	}
	if after.ID == 0 {
		return nil
	}
	return r.host.tier.Join(r.calls.Member(after, ix))
}

// foreignChange is a commit by somebody else in a device namespace.
type foreignChange struct {
	device string
	event  nft.Event
}

func (r *Reconciler) foreignChanged(f foreignChange) error {
	// Others that wait were before the look that follows.
	for more := true; more; {
		select {
		case f = <-r.foreign:
		default:
			more = false
		}
	}
	why := fmt.Sprintf("somebody else changed nftables: pid %d (%s)", f.event.PID, f.event.Process)
	if f.event.Lost {
		why = "notifications of nftables were lost"
	}
	return r.sync(why)
}

// monitor listens for commits in one device namespace.
type monitor struct {
	conn *nft.Monitor
	ns   string // identity of the device namespace
}

// watchDevices has a monitor in each open device namespace, and none elsewhere.
func (r *Reconciler) watchDevices() {
	for name, m := range r.monitors {
		if d := r.host.devices[name]; d == nil || identityKey(d) != m.ns {
			m.conn.Close()
			delete(r.monitors, name)
		}
	}
	for name, d := range r.host.devices {
		if r.monitors[name] != nil {
			continue
		}
		conn, err := nft.OpenMonitor(d.ns.NetNS())
		if err != nil {
			r.log.Error("foreign changes will be noticed by the safety resync only", "device", name, "error", err)
			continue
		}
		r.monitors[name] = &monitor{conn: conn, ns: identityKey(d)}
		go r.listen(name, conn)
	}
}

func (r *Reconciler) closeMonitors() {
	for _, m := range r.monitors {
		m.conn.Close()
	}
}

// listen passes on what others commit, until the monitor is closed.
func (r *Reconciler) listen(device string, m *nft.Monitor) {
	own := uint32(os.Getpid())
	for {
		e, err := m.Receive()
		if err != nil {
			return
		}
		if !e.Lost && (e.PID == own || len(e.Touched(compiler.TableName)) == 0) {
			continue
		}
		select {
		case r.foreign <- foreignChange{device, e}:
		default: // enough wait already
		}
	}
}

// backoff spaces attempts after errors.
type backoff struct {
	timer *time.Timer
	delay time.Duration
}

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
)

func newBackoff() *backoff {
	b := &backoff{timer: time.NewTimer(time.Hour), delay: firstRetry}
	b.timer.Stop()
	return b
}

func (b *backoff) C() <-chan time.Time { return b.timer.C }

// next starts the timer and returns its delay.
func (b *backoff) next() time.Duration {
	d := b.delay
	b.timer.Reset(d)
	b.delay = min(2*b.delay, lastRetry)
	return d
}

func (b *backoff) reset() {
	b.timer.Stop()
	b.delay = firstRetry
}

func (b *backoff) stop() { b.timer.Stop() }
