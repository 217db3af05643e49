package controller

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// Pending is a change that is in force and goes back unless it is confirmed in
// time. It is a file of the runtime directory, so that whoever comes first
// after the deadline can bring the former state back, however the process died
// that made the change. The file's name says what has become of it; it moves on
// by rename(2), which only one of two succeeds with:
//
//	pending     waits; removing it confirms the change
//	restoring   was not confirmed; the former state is being brought back
//	refused     of a controller: was brought back, but the policy files still hold it
type Pending struct {
	By       string        // who made the change, in words
	Boot     string        // the boot that it was made in; after another the kernel holds neither state
	Deadline time.Duration // since that boot (CLOCK_BOOTTIME)
	Former   *Snapshot     // what was enforced before
	// Of a controller: the policies, as files.
	FormerFiles, Files []model.File

	state pendingState
}

type pendingState string

const (
	waiting   pendingState = "pending"
	restoring pendingState = "restoring"
	refused   pendingState = "refused"
)

// ErrPending says that a change waits for its confirmation, so that there can
// be no other.
var ErrPending = errors.New("a change waits to be confirmed")

// ErrNothingPending says that no change waits for a confirmation.
var ErrNothingPending = errors.New("no change waits to be confirmed")

// Left returns how much time is left to confirm.
func (p *Pending) Left() time.Duration { return p.Deadline - sinceBoot() }

// sinceBoot is a clock that nobody sets and that runs while the machine sleeps.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // can't fail: Linux 2.6.39
	return time.Duration(t.Nano())
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// path returns the name of a record in a state.
func (s pendingState) path(dir string) string { return filepath.Join(dir, string(s)) }

// ReadPending returns the change that waits for confirmation in a runtime
// directory, or whose way back was interrupted. The error is ErrNothingPending
// if there is none.
func ReadPending(dir string) (*Pending, error) {
	for _, s := range []pendingState{restoring, waiting} {
		if p, err := readPending(dir, s); !errors.Is(err, ErrNothingPending) {
			return p, err
		}
	}
	return nil, ErrNothingPending
}

func readPending(dir string, s pendingState) (*Pending, error) {
	f, err := os.Open(s.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNothingPending
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &Pending{state: s}
	if err := gob.NewDecoder(f).Decode(p); err != nil {
		return nil, fmt.Errorf("%s can't be read, and with it the former policy: %w; if what is enforced now is right, remove the file", f.Name(), err)
	}
	if p.Boot != bootID() {
		_ = os.Remove(f.Name())
		return nil, ErrNothingPending
	}
	return p, nil
}

// wait writes the record of a change that waits from now on. With again, it has
// to wait already: the error is ErrNothingPending if somebody has ended that.
func (p *Pending) wait(dir string, window time.Duration, again bool) error {
	p.Boot, p.Deadline, p.state = bootID(), sinceBoot()+window, waiting
	f, err := os.CreateTemp(dir, ".pending-*") // 0600: it holds the policy
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = errors.Join(gob.NewEncoder(f).Encode(p), f.Sync(), f.Close())
	if err == nil {
		flags := uint(0)
		if again {
			flags = unix.RENAME_EXCHANGE // fails if there is nothing to exchange it with
		}
		err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, waiting.path(dir), flags)
	}
	if again && errors.Is(err, fs.ErrNotExist) {
		return ErrNothingPending
	}
	if err != nil {
		return fmt.Errorf("keep the former policy: %w", err)
	}
	return nil
}

// claim takes the change away from whoever else would confirm it or take it
// back. It is no error if it is claimed already.
func (p *Pending) claim(dir string) error {
	if p.state == restoring {
		return nil
	}
	err := os.Rename(p.state.path(dir), restoring.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNothingPending
	}
	p.state = restoring
	return err
}

// done ends the way back. A policy that a controller refused is remembered
// while its files hold it.
func (p *Pending) done(dir string) error {
	if p.FormerFiles == nil {
		return os.Remove(restoring.path(dir))
	}
	p.state = refused
	return os.Rename(restoring.path(dir), refused.path(dir))
}

// Forget removes the record of a change that waits, is taken back or was, for
// when nothing of it matters any more.
func Forget(dir string) error {
	var errs []error
	for _, s := range []pendingState{waiting, restoring, refused} {
		if err := os.Remove(s.path(dir)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Confirm keeps the change that waits. The error is ErrNothingPending if none
// does, or if it is too late.
func Confirm(dir string) error {
	p, err := ReadPending(dir)
	if err != nil {
		return err
	}
	if p.state == waiting {
		err = os.Remove(waiting.path(dir))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("%w any more: the former policy comes back", ErrNothingPending)
}

// TakeBack ends the wait as if the time were up. Whoever keeps the policy
// brings the former one back: [Host.Settle], or a controller.
func TakeBack(dir string) error {
	p, err := ReadPending(dir)
	if err != nil {
		return err
	}
	return p.claim(dir)
}

// ApplyPending carries out a plan that goes back unless it is confirmed within
// a time. guard starts a process that outlives this one and calls [Guard]. The
// caller holds the lock and has settled what waited before.
func (h *Host) ApplyPending(plan *Plan, dir, by string, window time.Duration, guard func() error) error {
	former, err := h.Snapshot()
	if err != nil {
		return err
	}
	p := &Pending{By: by, Former: former}
	if err := p.wait(dir, window, false); err != nil {
		return err
	}
	err = guard()
	if err == nil {
		err = h.Apply(plan)
	}
	if err != nil {
		return errors.Join(err, Forget(dir))
	}
	return p.wait(dir, window, true) // it was not in force before
}

// Settle brings the former state back if a change was not confirmed in time,
// and returns that change; nil if there is nothing to do. The error is
// ErrPending if a change still waits. The caller holds the lock.
func (h *Host) Settle(dir string) (*Pending, error) {
	p, err := ReadPending(dir)
	if errors.Is(err, ErrNothingPending) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if left := p.Left(); p.state == waiting && left > 0 {
		return p, fmt.Errorf("%w (%s, %s left): `sockns confirm` keeps it, `sockns rollback` takes it back", ErrPending, p.By, left.Round(time.Second))
	}
	if err := p.claim(dir); err != nil {
		if errors.Is(err, ErrNothingPending) { // confirmed at this moment
			return nil, nil
		}
		return nil, err
	}
	plan, err := h.PlanRestore(p.Former)
	if err == nil {
		err = h.Apply(plan)
	}
	if err != nil {
		return p, fmt.Errorf("bring the former policy back: %w", err)
	}
	return p, p.done(dir)
}
