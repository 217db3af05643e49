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

// probe begins to ask the kernel what it can do for system calls, unless it was
// asked already: it checks the programs, which takes longer than most policies.
func (h *Host) probe() {
	if h.support != nil || h.probing != nil {
		return
	}
	answer := make(chan *syscalls.Support, 1)
	h.probing = answer
	go func() {
		var s syscalls.Support
		if t, err := syscalls.Open(h.Instance()); err == nil {
			s.Variant = t.Variant()
			t.Close()
		} else {
			s = syscalls.Probe()
		}
		answer <- &s
	}()
}

// callSupport asks the kernel once.
func (h *Host) callSupport() syscalls.Support {
	if h.support == nil {
		h.probe()
		h.support, h.probing = <-h.probing, nil
	}
	return *h.support
}

// callFacts adds to the facts what the syscall tier needs. Of a kernel that was
// not heard of yet the best is assumed, see planCalls.
func (h *Host) callFacts(f *compiler.Facts, devices map[string]*hostDevice) error {
	f.Syscalls, f.Steers = true, true
	if h.support != nil {
		f.Syscalls, f.Steers = h.support.OK(), h.support.Variant == syscalls.Cast
	}
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

// callsCompared is what a policy asks of the syscall tier, held against what runs.
type callsCompared struct {
	plan CallPlan
	err  error
}

// compareCalls compiles for the syscall tier, and compares.
func (h *Host) compareCalls(p *model.Policy, f compiler.Facts) (c callsCompared) {
	if !f.Syscalls {
		return c
	}
	c.plan.Program, c.plan.Index = compiler.CompileSyscalls(p, f)
	c.err = h.compareProgram(&c.plan)
	return c
}

// planCalls adds to a plan what the syscall tier is to run. Where the kernel can do
// less than the facts assume, they are mended, and so is the program that came of
// them: its tables are the same, what it says of them is not.
func (h *Host) planCalls(plan *Plan, c callsCompared) error {
	p, f, s := plan.Policy, &plan.Facts, h.callSupport()
	if calls, steers := s.OK(), s.Variant == syscalls.Cast; f.Syscalls != calls || f.Steers != steers {
		f.Syscalls, f.Steers = calls, steers
		plan.Program = compiler.Compile(p, *f)
	}
	if !s.OK() {
		c = callsCompared{}
		if p.Syscalls == model.SyscallsRequired {
			c.err = fmt.Errorf("the policy has enforcement: {syscalls: required}, and bind(2) and connect(2) can't be answered here: %s; use auto to enforce with packets alone", s.Why)
		}
	}
	plan.Calls = c.plan
	plan.Calls.Support = s
	return c.err
}

// compareProgram finds out what has to change for a program to run.
func (h *Host) compareProgram(calls *CallPlan) error {
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
