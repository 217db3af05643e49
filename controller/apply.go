package controller

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/nft"
)

// Apply carries out a plan: in all device namespaces or in none. The new
// chains are added first, everywhere, where no packet reaches them; then each
// device namespace is switched to them, in one commit that no packet sees
// half of; then what nobody needs any more is removed. If the kernel refuses
// anything before the end of the second step, what was done is undone.
//
// Device namespaces that have no table yet get theirs before all that: nothing
// is enforced there, and the syscall tier may take its time (programs to load and
// attach, RCU grace periods).
//
// The order of the switches closes before it opens: device namespaces that
// gain socket namespaces come first and those that lose some come last. The
// syscall tier, which is not the wall, follows the packets' rules.
func (h *Host) Apply(p *Plan) error {
	work := make([]*DevicePlan, 0, len(p.Devices))
	for i := range p.Devices {
		if !p.Devices[i].Change.Empty() {
			work = append(work, &p.Devices[i])
		}
	}
	sort.SliceStable(work, func(i, j int) bool { return opens(work[i]) < opens(work[j]) })
	for _, d := range work {
		if d.fresh() {
			if err := d.begin(); err != nil {
				return errors.Join(err, p.undo(work))
			}
		}
	}
	if err := h.readyCalls(p); err != nil {
		return errors.Join(err, p.undo(begun(work)))
	}
	steps := []func(nft.Transaction) nft.Batch{
		func(t nft.Transaction) nft.Batch { return t.Add },
		func(t nft.Transaction) nft.Batch { return t.Switch },
	}
	for _, step := range steps {
		for _, d := range work {
			if d.begun {
				continue
			}
			if err := commit(d, step(d.Change)); err != nil {
				return errors.Join(err, p.undo(work))
			}
		}
	}
	if err := h.switchCalls(p); err != nil {
		return errors.Join(err, p.undo(work))
	}
	var errs []error
	for _, d := range work {
		errs = append(errs, commit(d, d.Change.Clean))
	}
	return errors.Join(errs...)
}

// fresh reports whether a device namespace has no table and is to get one.
func (d *DevicePlan) fresh() bool { return d.Old == nil && d.New != nil && !d.begun }

// begin has a device namespace that has no table decide by its first one.
func (d *DevicePlan) begin() error {
	d.begun = true
	for _, b := range []nft.Batch{d.Change.Add, d.Change.Switch} {
		if err := commit(d, b); err != nil {
			return err
		}
	}
	return nil
}

// begun returns those that have begun.
func begun(work []*DevicePlan) []*DevicePlan {
	return slices.DeleteFunc(slices.Clone(work), func(d *DevicePlan) bool { return !d.begun })
}

// opens orders the switches: a device namespace that loses socket namespaces
// opens something.
func opens(d *DevicePlan) int {
	lost := 0
	for _, s := range d.Steps {
		if s.Text != "" {
			continue
		}
		switch s.Op {
		case compiler.Remove:
			lost++
		case compiler.Add:
			lost--
		}
	}
	return lost
}

func commit(d *DevicePlan, b nft.Batch) error {
	if b.Empty() {
		return nil
	}
	if err := d.dev.conn.Commit(b); err != nil {
		return fmt.Errorf("device namespace %s: %w", d.Name, err)
	}
	return nil
}

// undo brings the tables back to what they were when the plan was made. Of tables
// that are known in part nothing is undone: who plans so compares everything after
// an error, and goes back to what was in force if that fails, too.
func (p *Plan) undo(work []*DevicePlan) error {
	if p.part {
		return nil
	}
	var errs []error
	for _, d := range work {
		now, err := d.dev.table()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		back := nft.Diff(now, d.Old)
		for _, b := range []nft.Batch{back.Add, back.Switch, back.Clean} {
			if err := commit(d, b); err != nil {
				errs = append(errs, fmt.Errorf("bring back the former rules: %w", err))
				break
			}
		}
	}
	return errors.Join(errs...)
}
