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
	batch := []watch.Event{first}
	for more := true; more; {
		select {
		case e := <-r.cgroups.Events():
			batch = append(batch, e)
		default:
			more = false
		}
	}
	for _, e := range batch {
		if e.Kind == watch.Lost {
			if e.Err != nil {
				r.emit(events.Event{Kind: events.Degraded, Message: "cgroup events were lost", Error: e.Err.Error()})
			}
			return r.sync(cause{why: "cgroup events were lost"})
		}
	}
	if why := r.follow(batch); why != nil {
		return r.sync(*why)
	}
	return nil
}

// take follows what was read of cgroups in the goroutine that reads, if Run is
// doing nothing: the way through Run's goroutine takes as long as the commit.
func (r *Reconciler) take(batch []watch.Event) bool {
	if !r.mu.TryLock() {
		return false
	}
	defer r.mu.Unlock()
	if r.devices == nil {
		return false
	}
	if why := r.follow(batch); why != nil {
		r.devices = nil // it may be ahead of the kernel
		select {
		case r.behind <- *why:
		default: // a look at everything is due already
		}
	}
	return true
}

// moved is what became of a cgroup in a device namespace.
type moved struct {
	device        string
	before, after compiler.Member // zero: it was, or is, no member
	index         *compiler.Index
}

// follow commits what is new of the cgroups of some events. If that can't be
// done, r.devices is ahead of the kernel, and a sync for the cause that it
// returns makes it anew.
func (r *Reconciler) follow(batch []watch.Event) *cause {
	began := time.Now()
	if r.inForce != nil {
		r.inForce.moved = true
	}
	batches := make(map[string]*nft.Batch, len(r.devices))
	var all []moved
	seen := make(map[string]bool, len(batch))
	for _, e := range batch {
		path := e.Path
		if seen[path] {
			continue // what is there now is what counts
		}
		seen[path] = true
		owner, sure := r.claims.of(path)
		if !sure {
			return &cause{why: "cgroup " + path}
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
				return &cause{why: "cgroup " + path}
			}
			if after := m.members[path]; after != before {
				all = append(all, moved{dev, before, after, m.index})
			}
		}
	}
	for dev, b := range batches {
		if err := r.host.devices[dev].conn.Commit(*b); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: dev, Cgroup: batch[0].Path, Message: "elements could not be changed alone", Error: err.Error()})
			return &cause{why: "cgroup " + batch[0].Path}
		}
	}
	for _, c := range all {
		if err := r.callMember(c.before, c.after, c.index); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: c.device, Cgroup: c.after.Path + c.before.Path, Message: "the syscall tier could not follow", Error: err.Error()})
			return &cause{why: "cgroup " + batch[0].Path}
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

// lookAfterCalls brings the programs of the syscall tier back if somebody was at them.
func (r *Reconciler) lookAfterCalls() error {
	if lost := r.callsLost(); lost != nil {
		return r.sync(cause{why: "the syscall tier was tampered with", tier: lost})
	}
	return nil
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
