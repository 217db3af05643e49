package controller

import (
	"maps"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/decisions"
	"github.com/sockns/sockns/events"
)

// cause is why everything is compared.
type cause struct {
	why    string
	by     map[string][]events.Actor // who else committed, by device namespace
	tier   error                     // what happened to the programs of the syscall tier
	safety bool                      // nothing said that anything changed
	back   bool                      // a policy that could not be enforced gives way to the last good one
}

// sync compares everything and applies what differs. Device namespaces that
// come and go are met here.
func (r *Reconciler) sync(c cause) error {
	began := time.Now()
	r.begins()
	r.devices, r.inForce = nil, nil
	// Listen before looking: what others change from here on is announced.
	opened, err := r.host.openAll(r.good.Policy)
	if err != nil {
		return err
	}
	r.watchDevices()
	r.known = r.locals()
	r.tellDevices(opened)
	plan, err := r.plan(true)
	if err != nil {
		return err
	}
	if plan.Changes() {
		if err := r.host.Apply(plan); err != nil {
			return err
		}
		r.tellPlan(c, plan)
	}
	if err := r.host.openTier(plan); err != nil {
		return err
	}
	if r.full && !c.back {
		r.emit(r.loaded(plan))
	}
	r.calls = plan.Calls.Index
	devices := make(map[string]*membership)
	for _, d := range plan.Program.Devices {
		if d.Index != nil {
			devices[d.Name] = newMembership(r.good.Policy, d.Name, d.Index, plan.Facts)
		}
	}
	r.devices, r.full = devices, false
	r.inForce = &inForce{program: plan.Program.Kept(), facts: plan.Facts}
	r.settle(plan)
	r.witness.follow(r.viewOf(plan), r.host, plan)
	if err := r.trial.restored(); err != nil {
		return err
	}
	r.unannounced = nil
	r.emit(events.Event{Kind: events.Reconciled, Message: c.why, Took: time.Since(began).Seconds(), Changed: plan.Changes()})
	return nil
}

// viewOf returns what the kernel's numbers mean under a plan that is in force.
func (r *Reconciler) viewOf(plan *Plan) *decisions.View {
	indexes, cookies := make(map[string]*compiler.Index), make(map[uint64]string)
	for _, d := range plan.Program.Devices {
		if d.Index != nil {
			indexes[d.Name] = d.Index
			cookies[r.host.devices[d.Name].ns.Identity().Cookie] = d.Name
		}
	}
	return decisions.NewView(r.good.Policy, indexes, cookies)
}

// plan plans the policy; the first time also the removal of tables in device
// namespaces that it does not name any more. If begin is set, device namespaces
// without a table get theirs on the way, see [Host.planPolicy].
func (r *Reconciler) plan(begin bool) (*Plan, error) {
	if r.full {
		return r.host.planAll(r.good.Policy, begin)
	}
	plan, _, err := r.host.planPolicy(r.good.Policy, begin)
	return plan, err
}

// loaded tells that a policy is in force now.
func (r *Reconciler) loaded(plan *Plan) events.Event {
	e := events.Event{Kind: events.PolicyLoaded, Message: "it is in force"}
	if !plan.Changes() {
		e.Message = "it was in force already"
	}
	return e
}

// tellDevices tells which device namespaces came and went.
func (r *Reconciler) tellDevices(opened map[string]*hostDevice) {
	for name := range maps.Clone(r.present) {
		if opened[name] == nil {
			delete(r.present, name)
			r.emit(events.Event{Kind: events.DeviceWent, Device: name, Message: "its network namespace is gone"})
		}
	}
	for name, d := range opened {
		key := identityKey(d)
		if r.present[name] == key {
			continue
		}
		e := events.Event{Kind: events.DeviceAppeared, Device: name, Message: "its network namespace is there"}
		if r.present[name] != "" {
			e.Message = "it is another network namespace now"
		}
		r.present[name] = key
		r.emit(e)
	}
}

// tellPlan tells what a plan that was applied has changed, and why.
func (r *Reconciler) tellPlan(c cause, plan *Plan) {
	for _, d := range plan.Devices {
		if d.Change.Empty() {
			continue
		}
		e := events.Event{Kind: events.Changed, Device: d.Name, Message: c.why}
		if by := c.by[d.Name]; len(by) > 0 {
			e.Kind, e.By = events.DriftRepaired, by
		} else if c.safety && r.unannounced.still(d) {
			e.Kind = events.ResyncFound
		}
		e.SetSteps(d.Steps)
		r.emit(e)
	}
	if c.tier != nil && plan.Calls.Change {
		r.emit(events.Event{Kind: events.TierRepaired, Message: c.why, Error: c.tier.Error()})
	}
}
