package controller

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// Plan is what apply would change, and why.
type Plan struct {
	Policy  *model.Policy // nil when everything is to be removed
	Devices []DevicePlan
	Notes   []compiler.Note
	Facts   compiler.Facts
	Program *compiler.Program // nil if Policy is
	Calls   CallPlan
	// part says that tables are in it in part: what is the same in both is left out.
	part bool
}

// DevicePlan is the part of a plan for one device namespace.
type DevicePlan struct {
	Name       string // "host", or the path of one that the policy does not name
	Old, New   *nft.Table
	Generation nft.Generation // of the ruleset that Old was read from
	Change     nft.Transaction
	Steps      []compiler.Step
	begun      bool // it has a table since, which was its first
	dev        *hostDevice
}

// Changes reports whether applying the plan would change what is enforced or
// how it reads.
func (p *Plan) Changes() bool {
	for _, d := range p.Devices {
		if !d.Change.Empty() {
			return true
		}
	}
	return p.Calls.Change
}

// Plan compares a policy with the kernel. A nil policy plans the removal of all
// that this instance made. Nothing is changed.
func (h *Host) Plan(p *model.Policy) (*Plan, error) { return h.planAll(p, false) }

// planAll is Plan, see planPolicy.
func (h *Host) planAll(p *model.Policy, begin bool) (*Plan, error) {
	plan, planned, err := h.planPolicy(p, begin)
	if err != nil {
		return nil, err
	}
	if err := h.planStale(plan, planned); err != nil {
		return nil, errors.Join(err, plan.takeBack())
	}
	return plan, nil
}

// planStale adds the removal of what this instance has in device namespaces
// that are not planned.
func (h *Host) planStale(plan *Plan, planned map[string]bool) error {
	stale, err := h.stale(planned)
	if err != nil {
		return err
	}
	for _, dev := range stale {
		dp, err := h.planDevice(dev, nil)
		if err != nil {
			return err
		}
		plan.Devices = append(plan.Devices, dp)
	}
	return nil
}

// planPolicy plans the device namespaces of the policy alone, and returns
// their identities. If begin is set, device namespaces that have no table yet get
// theirs as soon as it is known, while the kernel is still asked what it can do
// for system calls; after an error it is taken away again.
func (h *Host) planPolicy(p *model.Policy, begin bool) (*Plan, map[string]bool, error) {
	plan := &Plan{Policy: p}
	planned := make(map[string]bool) // by identityKey
	if p == nil {
		plan.Calls.Change = syscalls.Exists(h.Instance())
		return plan, planned, nil
	}
	h.probe()
	devices, err := h.openAll(p)
	if err != nil {
		return nil, nil, err
	}
	// Reading the tables back takes as long as all that follows from the policy.
	readings := make(map[string]chan reading)
	for name, dev := range devices {
		done := make(chan reading, 1)
		readings[name] = done
		go func() { done <- dev.read() }()
	}
	read := func(name string) reading {
		r := <-readings[name]
		readings[name] <- r
		return r
	}
	defer func() {
		for name := range devices {
			read(name) // before anybody closes the socket
		}
	}()
	if plan.Facts, err = h.facts(p, devices); err != nil {
		return nil, nil, err
	}
	if err := h.callFacts(&plan.Facts, devices); err != nil {
		return nil, nil, err
	}
	calls, facts := make(chan callsCompared, 1), plan.Facts
	go func() { calls <- h.compareCalls(p, facts) }()
	plan.Program = compiler.Compile(p, plan.Facts)
	for _, d := range plan.Program.Devices {
		dev := devices[d.Name]
		var dp DevicePlan
		if dp, err = h.planTable(dev, d.Table, read(d.Name)); err != nil {
			break
		}
		planned[identityKey(dev)] = true
		plan.Devices = append(plan.Devices, dp)
	}
	if err == nil && begin && p.Syscalls != model.SyscallsRequired {
		for i := range plan.Devices {
			if d := &plan.Devices[i]; d.fresh() {
				err = errors.Join(err, d.begin())
			}
		}
	}
	if compared := <-calls; err == nil {
		err = h.planCalls(plan, compared)
	}
	if err != nil {
		return nil, nil, errors.Join(err, plan.takeBack())
	}
	plan.Notes = plan.Program.Notes
	return plan, planned, nil
}

// takeBack undoes what was begun of a plan that comes to nothing.
func (p *Plan) takeBack() error {
	var work []*DevicePlan
	for i := range p.Devices {
		if p.Devices[i].begun {
			work = append(work, &p.Devices[i])
		}
	}
	return p.undo(work)
}

// reading is a table that was read back; nil if there is none.
type reading struct {
	table      *nft.Table
	generation nft.Generation // before it was read
	err        error
}

func (d *hostDevice) read() (r reading) {
	if r.generation, r.err = d.conn.Generation(); r.err != nil {
		r.err = fmt.Errorf("device namespace %s: %w", d.name, r.err)
		return r
	}
	r.table, r.err = d.table()
	return r
}

func (h *Host) planDevice(dev *hostDevice, want *nft.Table) (DevicePlan, error) {
	return h.planTable(dev, want, dev.read())
}

// planTable compares the table that was read back with the one that is wanted.
func (h *Host) planTable(dev *hostDevice, want *nft.Table, was reading) (DevicePlan, error) {
	if was.err != nil {
		return DevicePlan{}, was.err
	}
	have, generation := was.table, was.generation
	if have != nil && want != nil && have.Comment != want.Comment {
		return DevicePlan{}, fmt.Errorf("device namespace %s: table inet %s there is not of this sockns (it says %q): remove it with `sockns delete` in the network namespace that made it, or with `nft delete table inet %s`",
			dev.name, compiler.TableName, have.Comment, compiler.TableName)
	}
	h.figures.carry(dev, have, want)
	dp := DevicePlan{
		Name: dev.name, Old: have, New: want, Generation: generation, dev: dev,
		Change: nft.Diff(have, want),
	}
	if !dp.Change.Empty() {
		dp.Steps = compiler.Steps(have, want)
	}
	return dp, nil
}

// table reads the table back; nil if there is none.
func (d *hostDevice) table() (*nft.Table, error) {
	t, err := d.conn.Table(compiler.TableName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("device namespace %s: read table: %w", d.name, err)
	}
	return t, nil
}
