package controller

import (
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/watch"
)

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
