package controller

import (
	"errors"
	"fmt"

	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

// errBroken says that the policy files hold errors, which were told of.
var errBroken = errors.New("the policy has errors")

// start enforces the policy for the first time, or the one that an unconfirmed
// edit gave way to.
func (r *Reconciler) start() error {
	r.host.probe()
	if err := r.resumeTrial(); err != nil {
		return err
	}
	c := cause{why: "start"}
	l, err := r.load()
	if err == nil {
		err = r.try(l)
	}
	if err != nil {
		if r.good == nil {
			return err
		}
		l, c.back = r.good, true
	}
	if err := r.adopt(l); err != nil {
		return err
	}
	if err := r.sync(c); err != nil {
		return err
	}
	r.emit(events.Event{Kind: events.Started, Message: "the policy is in force"})
	return nil
}

// reload reads the files and puts what they hold in force. If they are broken,
// or what they hold can't be enforced here, the last good policy stays. The
// error is nil in the first case: only another edit mends it.
func (r *Reconciler) reload(why string) error {
	err := r.settleTrial()
	if l, broken := r.load(); broken == nil {
		return errors.Join(err, r.replace(l, why))
	}
	if r.devices == nil { // an edit was taken back
		err = errors.Join(err, r.sync(cause{why: why, back: true}))
	}
	return err
}

// replace puts another policy in the place of the good one, or goes back.
func (r *Reconciler) replace(l *Loaded, why string) error {
	if err := r.try(l); err != nil {
		if r.devices == nil {
			return r.sync(cause{why: why, back: true})
		}
		return nil
	}
	if r.edit(l, why) {
		r.record.waiting = nil
		return nil
	}
	last := r.good
	err := r.adopt(l)
	if err == nil {
		if err = r.sync(cause{why: why}); err != nil {
			err = r.sync(cause{why: why}) // somebody else may have been at it too
		}
	}
	if err == nil {
		r.record.waiting = nil
		return nil
	}
	if r.trial.former == nil {
		r.record.waiting = l
	}
	r.emit(events.Event{Kind: events.PolicyBroken, Message: "it can't be enforced here: the last good policy stays in force", Error: err.Error()})
	if back := r.adopt(last); back != nil {
		return errors.Join(err, back)
	}
	return errors.Join(err, r.sync(cause{why: "back to the last good policy", back: true}))
}

// again is another attempt after one that failed.
func (r *Reconciler) again() error {
	if l := r.record.waiting; l != nil {
		return r.replace(l, "retry")
	}
	return r.sync(cause{why: "retry"})
}

// load reads the policy files and tells what is in them. It fails if they
// can't be read or hold errors.
func (r *Reconciler) load() (*Loaded, error) {
	broken := events.Event{Kind: events.PolicyBroken, Message: "the last good policy stays in force"}
	if r.good == nil {
		broken.Message = "what the kernel enforces stays as it is"
	}
	r.record.waiting = nil
	r.begins()
	l, err := r.good.Again(r.paths)
	if err != nil {
		broken.Error = err.Error()
		r.emit(broken)
		return nil, err
	}
	if l.Policy == nil {
		broken.Problems = problems(l.Diagnostics)
		r.emit(broken)
		return nil, errBroken
	}
	return l, nil
}

// adopt makes a policy the one to enforce.
func (r *Reconciler) adopt(l *Loaded) error {
	r.good, r.claims, r.devices, r.inForce, r.full = l, claimsOf(l.Policy), nil, nil, true
	return r.cgroups.Watch(l.Policy)
}

func problems(list model.Diagnostics) []events.Problem {
	out := make([]events.Problem, 0, len(list))
	for _, d := range list {
		out = append(out, events.Problem{File: d.Pos.File, Line: d.Pos.Line, Column: d.Pos.Column, Severity: fmt.Sprint(d.Severity), Message: d.Message})
	}
	return out
}
