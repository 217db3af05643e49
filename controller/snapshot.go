package controller

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// Snapshot is all that this instance enforces at a moment, in both tiers, so
// that it can come back exactly as it was. It can be kept with encoding/gob.
type Snapshot struct {
	Tables  []SnapshotTable
	Program *syscalls.Program // nil without the syscall tier
}

// SnapshotTable is the table of one device namespace.
type SnapshotTable struct {
	Name, Path string          // as in [model.DeviceNamespace]
	Identity   device.Identity // another network namespace of this name is another one
	Table      *nft.Table
}

// Snapshot reads what is enforced. What somebody else has put into the tables
// and this program can't write is an error.
func (h *Host) Snapshot() (*Snapshot, error) {
	devices, err := h.stale(make(map[string]bool))
	if err != nil {
		return nil, err
	}
	s := &Snapshot{}
	for _, dev := range devices {
		t, err := dev.table()
		if err != nil {
			return nil, err
		}
		if t == nil {
			continue
		}
		if t.Foreign() {
			return nil, fmt.Errorf("device namespace %s: somebody else has added to table inet %s, and that could not be brought back: apply without confirmation first", dev.name, t.Name)
		}
		s.Tables = append(s.Tables, SnapshotTable{dev.name, dev.path, dev.ns.Identity(), t})
	}
	t, err := syscalls.Open(h.Instance())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("syscall tier: %w", err)
	}
	defer t.Close()
	if s.Program, err = t.Program(); err != nil {
		return nil, fmt.Errorf("syscall tier: %w", err)
	}
	return s, nil
}

// PlanRestore plans the way back to a snapshot. Device namespaces that are gone,
// or whose name leads to another network namespace now, are passed over; those
// that the snapshot does not know lose what they have.
func (h *Host) PlanRestore(s *Snapshot) (*Plan, error) {
	plan := &Plan{}
	planned := make(map[string]bool)
	for _, t := range s.Tables {
		dev, err := h.open(model.DeviceNamespace{Name: t.Name, Path: t.Path})
		if errors.Is(err, fs.ErrNotExist) || err == nil && dev.ns.Identity() != t.Identity {
			continue
		}
		if err != nil {
			return nil, err
		}
		dp, err := h.planDevice(dev, t.Table)
		if err != nil {
			return nil, err
		}
		planned[identityKey(dev)] = true
		plan.Devices = append(plan.Devices, dp)
	}
	if err := h.planStale(plan, planned); err != nil {
		return nil, err
	}
	plan.Calls = CallPlan{Support: h.callSupport(), Program: s.Program}
	if s.Program == nil {
		plan.Calls.Change = syscalls.Exists(h.Instance())
		return plan, nil
	}
	return plan, h.compareProgram(&plan.Calls)
}
