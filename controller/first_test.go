package controller

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// A device namespace without a table has its first one before the syscall tier
// is made ready, and none again if that fails.
func TestFirstTableComesFirst(t *testing.T) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		if !h.callSupport().OK() {
			t.Error("no syscall tier:", h.callSupport().Why)
			return
		}
		monitor, err := nft.OpenMonitor(-1, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer monitor.Close()
		p := mustParse(fatal{t}, port(base, 1001))
		plan, err := h.Plan(p)
		if err != nil {
			t.Error(err)
			return
		}
		real := h.Cgroups
		h.Cgroups = cgroup.OpenDirectory(t.TempDir()) // to which no program can be attached
		if err := h.Apply(plan); err == nil {
			t.Error("programs were attached to no cgroup")
		}
		h.Cgroups = real
		var verbs []nft.Verb
		for len(verbs) < 2 {
			if err := monitor.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Error(err)
			}
			e, err := monitor.Receive()
			if err != nil {
				t.Errorf("the table came and went: %v of it heard: %v", verbs, err)
				return
			}
			for _, c := range e.Touched(compiler.TableName) {
				if c.Kind == "table" {
					verbs = append(verbs, c.Verb)
				}
			}
		}
		if verbs[0] != nft.VerbAdd || verbs[1] != nft.VerbDelete {
			t.Errorf("the table was %v", verbs)
		}
		apply(fatal{t}, h, p)
	})
}

// What a plan has begun is the table that it wants, and is taken back with the
// plan; nothing is begun where calls have to be answered too.
func TestBegin(t *testing.T) {
	base := makeCgroups(t, "web")
	inNetns(t, func(t *testing.T, h *Host) {
		there := func() *nft.Table {
			table, err := h.devices["host"].table()
			if err != nil {
				t.Error(err)
			}
			return table
		}
		p := mustParse(fatal{t}, port(base, 1001))
		plan, _, err := h.planPolicy(p, true)
		if err != nil {
			t.Error(err)
			return
		}
		if change := nft.Diff(there(), plan.Devices[0].New); !change.Empty() {
			t.Errorf("what was begun differs: %s", change.String())
		}
		if err := plan.takeBack(); err != nil || there() != nil {
			t.Errorf("taken back: %v", err)
		}
		required := mustParse(fatal{t}, port(base, 1001)+"enforcement: {syscalls: required}\n")
		if _, _, err := h.planPolicy(required, true); err != nil || there() != nil {
			t.Errorf("begun without the syscall tier: %v", err)
		}
		if h.support != nil {
			h.support.Close()
		}
		h.support = nil
		h.probing = make(chan *syscalls.Support, 1)
		h.probing <- &syscalls.Support{Why: "not in this test"}
		plan, _, err = h.planPolicy(p, true)
		if err != nil || plan.Facts.Syscalls || len(plan.Notes) == 0 {
			t.Errorf("a kernel that can less than was assumed: %v, %v, notes %v", err, plan.Facts.Syscalls, plan.Notes)
		}
		if err := h.Apply(plan); err != nil {
			t.Error(err)
		}
		if syscalls.Exists(h.Instance()) {
			t.Error("there is a syscall tier")
		}
		if _, err := syscalls.Open(h.Instance()); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}
