package controller

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

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
		r.log.Warn("an edit still waits to be confirmed", "left", p.Left().Round(time.Second))
		return nil
	case err != nil:
		return err
	case p != nil:
		r.log.Error("not confirmed in time: the former policy is back", "change", p.By)
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
// wait for its confirmation.
func (r *Reconciler) try(l *Loaded) error {
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
		r.log.Info("the edit was undone before it was confirmed")
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
			r.log.Error("should this process die, the former policy comes back at its next start, not before", "error", err)
		}
	}
	t.timer.Reset(t.window)
	r.log.Warn("the edit goes back unless it is confirmed: sockns confirm", "within", t.window)
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
		r.log.Info("the edit was confirmed")
		t.end()
		return nil
	}
	if err != nil {
		return err
	}
	r.log.Error("the edit was not confirmed in time: the former policy comes back")
	former := t.former
	t.refused, t.restore = p.Files, p
	t.end()
	return r.adopt(former)
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
