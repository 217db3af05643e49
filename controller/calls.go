package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/syscalls"
)

// CallPlan is the part of a plan for the syscall tier.
type CallPlan struct {
	Support syscalls.Support
	Program *syscalls.Program // nil if the tier can't run, or is to be removed
	Index   compiler.CallIndex
	// Change says that what is in the kernel is not Program.
	Change bool
	// Install says that the programs do not run, or not all of them.
	Install bool
}

// callSupport asks the kernel once.
func (h *Host) callSupport() syscalls.Support {
	if h.support == nil {
		var s syscalls.Support
		if t, err := syscalls.Open(h.Instance()); err == nil {
			s.Variant = t.Variant()
			t.Close()
		} else {
			s = syscalls.Probe()
		}
		h.support = &s
	}
	return *h.support
}

// planCalls finds out whether the syscall tier can run here, and adds to the
// facts what it needs.
func (h *Host) planCalls(p *model.Policy, plan *Plan, devices map[string]*hostDevice) error {
	plan.Calls.Support = h.callSupport()
	if !plan.Calls.Support.OK() {
		if p.Syscalls == model.SyscallsRequired {
			return fmt.Errorf("the policy has enforcement: {syscalls: required}, and bind(2) and connect(2) can't be answered here: %s; use auto to enforce with packets alone", plan.Calls.Support.Why)
		}
		return nil
	}
	f := &plan.Facts
	f.Syscalls, f.Steers = true, plan.Calls.Support.Variant == syscalls.Cast
	for name, dev := range devices {
		df := f.Devices[name]
		df.Cookie = dev.ns.Identity().Cookie
		var err error
		if df.Locals, err = dev.ns.LocalAddresses(); err != nil {
			return err
		}
		f.Devices[name] = df
	}
	return nil
}

// compileCalls compiles for the syscall tier, if it can run, and compares. It
// touches the plan's calls alone.
func (h *Host) compileCalls(p *model.Policy, plan *Plan) error {
	if !plan.Calls.Support.OK() {
		return nil
	}
	plan.Calls.Program, plan.Calls.Index = compiler.CompileSyscalls(p, plan.Facts)
	return h.compareCalls(&plan.Calls)
}

// compareCalls finds out what has to change for a program to run.
func (h *Host) compareCalls(calls *CallPlan) error {
	t, err := syscalls.Open(h.Instance())
	if errors.Is(err, fs.ErrNotExist) {
		calls.Change, calls.Install = true, true
		return nil
	}
	if err != nil {
		return err
	}
	defer t.Close()
	same, err := t.Same(calls.Program)
	if err != nil {
		return fmt.Errorf("syscall tier: %w", err)
	}
	calls.Change = !same || !t.Steers(calls.Program.Netns)
	return nil
}

// netnsOf returns the network namespaces of a program that are open.
func (h *Host) netnsOf(p *syscalls.Program) []syscalls.Netns {
	var list []syscalls.Netns
	for _, dev := range h.devices {
		if cookie := dev.ns.Identity().Cookie; slices.Contains(p.Netns, cookie) {
			list = append(list, syscalls.Netns{Cookie: cookie, FD: dev.ns.FD()})
		}
	}
	return list
}

// readyCalls has the programs run if the plan needs them, with the policy that
// they have, and the plan's at hand.
func (h *Host) readyCalls(p *Plan) error {
	if !p.Calls.Change || p.Calls.Program == nil {
		return nil
	}
	if p.part { // it is open, and as it should be
		if err := h.tier.Prepare(p.Calls.Program); err != nil {
			return fmt.Errorf("syscall tier: %w", err)
		}
		return nil
	}
	h.closeTier()
	var err error
	if p.Calls.Install {
		h.tier, err = syscalls.Install(h.Instance(), h.Cgroups.Mount(), h.support)
	} else {
		h.tier, err = syscalls.Open(h.Instance())
	}
	if err == nil {
		err = h.tier.Steer(h.netnsOf(p.Calls.Program))
	}
	if err == nil {
		err = h.tier.Prepare(p.Calls.Program)
	}
	if err != nil {
		h.closeTier()
		return fmt.Errorf("syscall tier: %w", err)
	}
	return nil
}

// switchCalls puts the plan's calls in force, or removes the programs if the
// plan has no policy.
func (h *Host) switchCalls(p *Plan) error {
	if !p.Calls.Change {
		return nil
	}
	var err error
	if p.Calls.Program == nil {
		h.closeTier()
		err = syscalls.Remove(h.Instance())
	} else {
		err = h.tier.Flip(p.Calls.Program)
	}
	if err != nil {
		return fmt.Errorf("syscall tier: %w", err)
	}
	return nil
}

// openTier opens what runs, if the tier is in use.
func (h *Host) openTier(p *Plan) error {
	if h.tier != nil || p.Calls.Program == nil {
		return nil
	}
	tier, err := syscalls.Open(h.Instance())
	if err != nil {
		return fmt.Errorf("syscall tier: %w", err)
	}
	h.tier = tier
	return nil
}

func (h *Host) closeTier() {
	if h.tier != nil {
		h.tier.Close()
		h.tier = nil
	}
}
