package controller

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// inForce is what is known of what the kernel enforces, so that an edit of the
// policy need not read it back.
type inForce struct {
	program *compiler.Program // without tables
	facts   compiler.Facts
	moved   bool // cgroups have come or gone since
}

// edit puts another policy in force by writing the difference alone, if the
// kernel is known to be equal to the present one and the policies do not differ
// in what they claim. It returns false if everything has to be compared.
//
// Nothing is assumed that notifications would not contradict: who else commits
// is told of ([Reconciler.foreignChanged]), as are cgroups, addresses and network
// namespaces that change, and everything is compared then.
func (r *Reconciler) edit(l *Loaded, why string) bool {
	began := time.Now()
	plan, program := r.planEdit(l)
	if plan == nil {
		return false
	}
	r.begins()
	c := cause{why: why}
	if plan.Changes() {
		if err := r.host.Apply(plan); err != nil {
			r.devices, r.inForce = nil, nil
			return false // whatever was done, everything is compared now
		}
		r.tellPlan(c, plan)
	}
	r.good, r.claims = l, claimsOf(l.Policy)
	r.emit(r.loaded(plan))
	r.calls = plan.Calls.Index
	for _, d := range plan.Program.Devices {
		if m := r.devices[d.Name]; m != nil {
			m.index = d.Index
		}
	}
	r.inForce = &inForce{program: program, facts: plan.Facts}
	r.witness.edited(r.viewOf(plan), plan)
	r.settle(plan)
	r.emit(events.Event{Kind: events.Reconciled, Message: why, Took: time.Since(began).Seconds(), Changed: plan.Changes()})
	return true
}

// settle has the syscall tier make ready for the next edit.
func (r *Reconciler) settle(plan *Plan) {
	if r.host.tier != nil && plan.Calls.Program != nil {
		r.host.tier.Settle(plan.Calls.Program)
	}
}

// planEdit plans an edit; nil if everything has to be compared.
func (r *Reconciler) planEdit(l *Loaded) (*Plan, *compiler.Program) {
	if r.devices == nil || r.inForce == nil || r.trial.restore != nil || len(r.foreign) > 0 || len(r.addresses) > 0 || !sameClaims(r.good.Policy, l.Policy) {
		return nil, nil
	}
	opened, err := r.host.openAll(l.Policy)
	if err != nil || len(opened) != len(r.present) {
		return nil, nil
	}
	for name, d := range opened {
		if r.present[name] != identityKey(d) || r.monitors[name] == nil || needsAddresses(l.Policy, name) != needsAddresses(r.good.Policy, name) {
			return nil, nil
		}
	}
	was, facts := r.inForce.program, r.inForce.facts
	if r.inForce.moved {
		if facts = r.factsNow(); facts.Devices == nil {
			return nil, nil
		}
		if was = was.With(facts); was == nil {
			return nil, nil
		}
	}
	plan := &Plan{Policy: l.Policy, Facts: facts, part: true}
	calls := make(chan bool, 1)
	go func() { calls <- r.host.planCallsAgain(plan, was, r.calls != nil) }()
	difference := was.Change(l.Policy, facts)
	if !<-calls || difference == nil {
		return nil, nil
	}
	plan.Program = difference.Program
	for _, d := range difference.Devices {
		dp, ok := r.host.planDifference(opened[d.Name], &d)
		if !ok {
			return nil, nil
		}
		plan.Devices = append(plan.Devices, dp)
	}
	return plan, difference.Program
}

// planCallsAgain adds to a plan what the syscall tier of this process, which is
// open and runs the present policy, is to run. It returns false if the tier has to
// be looked at.
func (h *Host) planCallsAgain(plan *Plan, was *compiler.Program, inUse bool) bool {
	if !inUse {
		return true
	}
	if h.tier == nil || h.support == nil || h.tier.Check() != nil || !h.tier.Current() {
		return false
	}
	plan.Calls.Support = *h.support
	plan.Calls.Program, plan.Calls.Index = was.CompileSyscalls(plan.Policy, plan.Facts)
	if !h.tier.Steers(plan.Calls.Program.Netns) {
		return false
	}
	plan.Calls.Change = !h.tier.Holds(plan.Calls.Program)
	return true
}

// planDifference plans the difference of a table. What goes is read, since its
// counters go on.
func (h *Host) planDifference(dev *hostDevice, d *compiler.DeviceDifference) (DevicePlan, bool) {
	read, generation, err := dev.conn.Chains(compiler.TableName, d.Unread)
	if err != nil {
		return DevicePlan{}, false
	}
	chains := make(map[string]*nft.Chain, len(read))
	for i := range read {
		chains[read[i].Name] = &read[i]
	}
	for i := range d.Old.Chains {
		if c := chains[d.Old.Chains[i].Name]; c != nil {
			d.Old.Chains[i] = *c
		}
	}
	h.figures.carryPart(dev, d.Old, d.New)
	dp := DevicePlan{
		Name: dev.name, Old: d.Old, New: d.New, Generation: generation, dev: dev,
		Change: nft.Diff(d.Old, d.New),
	}
	if dp.Change.Rebuild {
		return dp, false
	}
	if !dp.Change.Empty() {
		dp.Steps = compiler.Steps(d.Old, d.New)
	}
	return dp, true
}

// sameClaims reports whether two policies claim the same cgroups for namespaces
// of the same names in the same device namespaces.
func sameClaims(a, b *model.Policy) bool {
	return a.Syscalls == b.Syscalls &&
		slices.EqualFunc(a.DeviceNamespaces, b.DeviceNamespaces, func(x, y model.DeviceNamespace) bool { return x.Name == y.Name && x.Path == y.Path }) &&
		slices.EqualFunc(a.SocketNamespaces, b.SocketNamespaces, func(x, y model.SocketNamespace) bool {
			return x.Name == y.Name && x.Device == y.Device && x.Each == y.Each &&
				slices.EqualFunc(x.Members, y.Members, func(m, o model.Member) bool { return m.Cgroup == o.Cgroup && m.Unit == o.Unit })
		})
}

// factsNow returns the facts in force with the members that the kernel was told
// of since; none where templates have doors, of which more would have to be known.
func (r *Reconciler) factsNow() compiler.Facts {
	f := r.inForce.facts
	if len(f.Doors) > 0 {
		return compiler.Facts{}
	}
	now := make(map[compiler.Member]bool)
	for _, m := range r.devices {
		for _, member := range m.members {
			now[member] = true
		}
	}
	members := make([]compiler.Member, 0, len(now))
	for _, member := range f.Members {
		if now[member] {
			members = append(members, member)
			delete(now, member)
		}
	}
	came := slices.SortedFunc(maps.Keys(now), func(a, b compiler.Member) int { return cmp.Compare(a.Path, b.Path) })
	f.Members = append(members, came...)
	return f
}
