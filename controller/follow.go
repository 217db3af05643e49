package controller

import (
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/watch"
)

// cgroupsChanged brings the elements of cgroups up to date, or everything if
// looks at those cgroups alone can't tell. What waits besides the first event
// goes into the same commit.
func (r *Reconciler) cgroupsChanged(first watch.Event) error {
	paths := make([]string, 0, 1)
	seen := make(map[string]bool, 1)
	for e, more := first, true; more; {
		if e.Kind == watch.Lost {
			if e.Err != nil {
				r.emit(events.Event{Kind: events.Degraded, Message: "cgroup events were lost", Error: e.Err.Error()})
			}
			return r.sync(cause{why: "cgroup events were lost"})
		}
		if !seen[e.Path] {
			seen[e.Path] = true
			paths = append(paths, e.Path)
		}
		select {
		case e, more = <-r.cgroups.Events():
		default:
			more = false
		}
	}
	return r.follow(paths)
}

// moved is what became of a cgroup in a device namespace.
type moved struct {
	device        string
	before, after compiler.Member // zero: it was, or is, no member
	index         *compiler.Index
}

// follow commits what is new of some cgroups. If that can't be done, r.devices
// is ahead of the kernel, and sync makes it anew.
func (r *Reconciler) follow(paths []string) error {
	began := time.Now()
	if r.inForce != nil {
		r.inForce.moved = true
	}
	batches := make(map[string]*nft.Batch, len(r.devices))
	var all []moved
	for _, path := range paths {
		owner, sure := r.claims.of(path)
		if !sure {
			return r.sync(cause{why: "cgroup " + path})
		}
		for dev, m := range r.devices {
			by := owner
			if dev != by.device {
				by = claim{}
			}
			batch := batches[dev]
			if batch == nil {
				batch = &nft.Batch{}
				batches[dev] = batch
			}
			before := m.members[path]
			if !m.look(batch, path, by, r.host.Cgroups) {
				return r.sync(cause{why: "cgroup " + path})
			}
			if after := m.members[path]; after != before {
				all = append(all, moved{dev, before, after, m.index})
			}
		}
	}
	for dev, batch := range batches {
		if err := r.host.devices[dev].conn.Commit(*batch); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: dev, Cgroup: paths[0], Message: "elements could not be changed alone", Error: err.Error()})
			return r.sync(cause{why: "cgroup " + paths[0]})
		}
	}
	for _, c := range all {
		if err := r.callMember(c.before, c.after, c.index); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: c.device, Cgroup: c.after.Path + c.before.Path, Message: "the syscall tier could not follow", Error: err.Error()})
			return r.sync(cause{why: "cgroup " + paths[0]})
		}
	}
	for _, c := range all {
		r.witness.joined(c.device, c.after.Namespace)
		r.emitMember(c.device, c.before, c.after, time.Since(began))
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
const attachedInterval = 250 * time.Millisecond

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
