package controller

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

// trial is how a controller has its edits confirmed. While one waits, former is
// what comes back without a confirmation.
type trial struct {
	dir    string        // runtime directory
	window time.Duration // zero: edits are in force for good
	guard  func() error
	timer  *time.Timer

	former  *Loaded
	refused []model.File // what was taken back, and may still be in the files
	restore *Pending     // is taken back, and done with when the former policy is in force
}

func newTrial(o Options) trial {
	t := trial{dir: o.RuntimeDir, window: o.Confirm, guard: o.Guard, timer: time.NewTimer(time.Hour)}
	t.timer.Stop()
	return t
}

// resumeTrial takes over what an earlier process left: a change that waits, one
// whose time is over, or one that was taken back. If r.good is set then, it is
// what the former process had in force.
func (r *Reconciler) resumeTrial() error {
	p, err := r.host.Settle(r.trial.dir)
	switch {
	case errors.Is(err, ErrPending) && p.FormerFiles != nil:
		r.trial.former, r.good = parse(p.FormerFiles), parse(p.Files)
		r.trial.timer.Reset(p.Left())
		r.emit(events.Event{Kind: events.ConfirmWaiting, Message: fmt.Sprintf("an edit still waits for sockns confirm, %s are left", p.Left().Round(time.Second))})
		return nil
	case err != nil:
		return err
	case p != nil:
		r.emit(events.Event{Kind: events.Restored, Message: "not confirmed in time: the former policy is back. It was changed by " + p.By})
	}
	p, err = readPending(r.trial.dir, refused)
	if err == nil {
		r.trial.refused, r.good = p.Files, parse(p.FormerFiles)
	}
	if errors.Is(err, ErrNothingPending) {
		return nil
	}
	return err
}

// errRefused says that the files hold a policy that was not confirmed.
var errRefused = errors.New("the files hold a policy that was not confirmed in time: edit them")

// try decides whether a policy that was loaded may be enforced, and begins the
// wait for its confirmation. If it may not, that is told of.
func (r *Reconciler) try(l *Loaded) error {
	err := r.begin(l)
	if err != nil {
		r.emit(events.Event{Kind: events.PolicyBroken, Message: "the last good policy stays in force", Error: err.Error()})
	}
	return err
}

func (r *Reconciler) begin(l *Loaded) error {
	t := &r.trial
	if t.refused != nil {
		if sameFiles(l.Files, t.refused) {
			return errRefused
		}
		t.refused = nil
		if err := os.Remove(refused.path(t.dir)); err != nil {
			return err
		}
	}
	switch {
	case r.good == nil || sameFiles(l.Files, r.good.Files):
		return nil
	case t.former != nil && sameFiles(l.Files, t.former.Files):
		r.emit(events.Event{Kind: events.Confirmed, Message: "the edit was undone before it was confirmed"})
		t.end()
		return Forget(t.dir)
	case t.window == 0:
		if t.former != nil {
			t.end()
			return Forget(t.dir)
		}
		return nil
	}
	p, err := ReadPending(t.dir)
	again := err == nil
	if errors.Is(err, ErrNothingPending) {
		p = &Pending{By: fmt.Sprintf("controller with pid %d", os.Getpid()), FormerFiles: r.good.Files}
		p.Former, err = r.host.Snapshot()
	}
	if err != nil {
		return fmt.Errorf("the edit is not loaded, it could not be taken back: %w", err)
	}
	p.Files = l.Files
	if err := p.wait(t.dir, t.window, again); err != nil {
		return fmt.Errorf("the edit is not loaded, it could not be taken back: %w", err)
	}
	if !again {
		t.former = r.good
		if err := t.guard(); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Message: "should this process die, the former policy comes back at its next start, not before", Error: err.Error()})
		}
	}
	t.timer.Reset(t.window)
	r.emit(events.Event{Kind: events.ConfirmWaiting, Message: fmt.Sprintf("the edit goes back unless sockns confirm follows within %s", t.window)})
	return nil
}

// settleTrial looks what has become of an edit that waits. If it was not
// confirmed in time, the former policy is the good one from then on.
func (r *Reconciler) settleTrial() error {
	t := &r.trial
	if t.former == nil {
		return nil
	}
	p, err := ReadPending(t.dir)
	if err == nil && p.state == waiting && p.Left() > 0 {
		t.timer.Reset(p.Left())
		return nil
	}
	if err == nil {
		err = p.claim(t.dir)
	}
	if errors.Is(err, ErrNothingPending) {
		r.emit(events.Event{Kind: events.Confirmed, Message: "the edit was confirmed"})
		t.end()
		return nil
	}
	if err != nil {
		return err
	}
	r.emit(events.Event{Kind: events.Restored, Message: "the edit was not confirmed in time: the former policy comes back"})
	former := t.former
	t.refused, t.restore = p.Files, p
	t.end()
	return r.adopt(former)
}

// confirmed looks whether an edit was confirmed, or whether its time is over.
func (r *Reconciler) confirmed() error {
	err := r.settleTrial()
	if r.trial.restore == nil {
		return err
	}
	r.emit(events.Event{Kind: events.PolicyBroken, Message: "the last good policy stays in force", Error: errRefused.Error()})
	return errors.Join(err, r.sync(cause{why: "not confirmed in time", back: true}))
}

// restored notes that the former policy is in force again.
func (t *trial) restored() error {
	if t.restore == nil {
		return nil
	}
	err := t.restore.done(t.dir)
	if err == nil {
		t.restore = nil
	}
	return err
}

func (t *trial) end() {
	t.former = nil
	t.timer.Stop()
}

func sameFiles(a, b []model.File) bool {
	return slices.EqualFunc(a, b, func(a, b model.File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) })
}
