package controller

import (
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/watch"
)

// cgroupChanged brings one cgroup's elements up to date, or everything if one
// look can't tell.
func (r *Reconciler) cgroupChanged(e watch.Event) error {
	if e.Kind == watch.Lost {
		if e.Err != nil {
			r.emit(events.Event{Kind: events.Degraded, Message: "cgroup events were lost", Error: e.Err.Error()})
		}
		return r.sync(cause{why: "cgroup events were lost"})
	}
	began := time.Now()
	name, device, sure := r.claims.of(e.Path)
	if !sure {
		return r.sync(cause{why: "cgroup " + e.Path})
	}
	for dev, m := range r.devices {
		claimed := name
		if dev != device {
			claimed = ""
		}
		batch, done, sure := m.look(e.Path, claimed, r.host.Cgroups)
		if !sure {
			return r.sync(cause{why: "cgroup " + e.Path})
		}
		if batch.Empty() {
			continue
		}
		if err := r.host.devices[dev].conn.Commit(batch); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: dev, Cgroup: e.Path, Message: "its elements could not be changed alone", Error: err.Error()})
			return r.sync(cause{why: "cgroup " + e.Path})
		}
		before := m.members[e.Path]
		done()
		if err := r.callMember(before, m.members[e.Path], m.index); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: dev, Cgroup: e.Path, Message: "the syscall tier could not follow", Error: err.Error()})
			return r.sync(cause{why: "cgroup " + e.Path})
		}
		r.emitMember(dev, before, m.members[e.Path], time.Since(began))
	}
	return nil
}

// emitMember says that a cgroup left, joined, or both.
func (r *Reconciler) emitMember(device string, before, after compiler.Member, took time.Duration) {
	if before.ID != 0 && before != after {
		r.emit(events.Event{Kind: events.MemberLeft, Device: device, Namespace: before.Namespace, Cgroup: before.Path, Took: took.Seconds()})
	}
	if after.ID != 0 && before != after {
		r.emit(events.Event{Kind: events.MemberJoined, Device: device, Namespace: after.Namespace, Cgroup: after.Path, Took: took.Seconds()})
	}
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
