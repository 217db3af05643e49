package compiler

import (
	"maps"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// Difference is that of two compilations: of each table the part that is not the
// same in both.
type Difference struct {
	// Program is what the new policy compiles to, without its tables.
	Program *Program
	Devices []DeviceDifference
}

// DeviceDifference is that of the tables of a device namespace. [nft.Diff] of Old
// and New is that of the whole tables, if it does not rebuild.
type DeviceDifference struct {
	Name     string
	Old, New *nft.Table
	// Unread are the chains of Old without their rules, which nobody kept: they
	// are to be read, and may be absent if the kernel is not as it should be.
	Unread []string
}

// With returns the program with other facts, whose members the kernel was told of
// since it was compiled. It returns nil if there are namespaces among them that
// were not there.
func (prog *Program) With(f Facts) *Program {
	next := &Program{kept: &kept{policy: prog.kept.policy, facts: f, passes: prog.kept.passes, devices: make(map[string]*keptDevice)}}
	for name, k := range prog.kept.devices {
		other := *k
		other.spaces = spacesOf(prog.kept.policy, name, f)
		if len(other.spaces) != len(k.spaces) || slices.ContainsFunc(other.spaces, func(s *space) bool { _, known := k.resolver.ids[s.name]; return !known }) {
			return nil
		}
		next.kept.devices[name] = &other
	}
	return next
}

// Change compiles another policy, or facts, and returns how the tables differ
// from those of the program. What is not the same is compiled alone. It returns
// nil where too much differs to be done so: [Compile] tells then.
func (prog *Program) Change(p *model.Policy, f Facts) *Difference {
	old := prog.kept
	change := &Difference{Program: &Program{kept: &kept{policy: p, facts: f, passes: old.passes, devices: make(map[string]*keptDevice)}}}
	if f.Instance != old.facts.Instance || len(f.Devices) != len(old.facts.Devices) {
		return nil
	}
	names := p.Names()
	for _, d := range p.DeviceNamespaces {
		facts, ok := f.Devices[d.Name]
		if !ok {
			continue
		}
		was, there := old.devices[d.Name]
		spaces := spacesOf(p, d.Name, f)
		if (len(spaces) > 0) != there {
			return nil
		}
		out := Device{Name: d.Name}
		if there {
			next, dc := was.change(p, names, facts, spaces, old, f)
			if next == nil {
				return nil
			}
			change.Program.kept.devices[d.Name] = next
			change.Devices = append(change.Devices, *dc)
			out.Index = next.index
		}
		change.Program.Devices = append(change.Program.Devices, out)
	}
	if len(change.Program.kept.devices) != len(old.devices) {
		return nil
	}
	return change
}

// change is that of one device namespace; nil if too much differs.
func (k *keptDevice) change(p *model.Policy, names model.Names, facts DeviceFacts, spaces []*space, before *kept, now Facts) (*keptDevice, *DeviceDifference) {
	was := k.resolver
	r := newResolver(p, names, was.device, facts, spaces, identitiesAfter(was.ids, spaces), before.passes(spaces))
	if r.passes != was.passes || r.lists.least != was.lists.least || facts.Ephemeral() != was.facts.Ephemeral() || !slices.Equal(r.deep, was.deep) || !maps.Equal(r.always, was.always) {
		return nil, nil
	}
	for name, id := range was.ids {
		if now, stays := r.ids[name]; stays && now != id {
			return nil, nil
		}
	}
	policies := k.lower(r, spaces)
	share(r, spaces, policies)
	r.index = newIndex(r, policies, r.deep, r.always)
	by := firstsOf(spaces, policies)
	touched := k.touched(r, spaces, policies, by)
	// What is written in full: the policies that are touched, with all that have them.
	full := make(map[string]*chains)
	for name := range touched {
		first := by[name]
		if first == nil {
			continue
		}
		c := policies[first.Name]
		if c.list == nil {
			c = lowerPolicy(r, first)
			c.name = name
			owner, _, _ := strings.Cut(name, ".")
			rename(c, r.ids[owner])
		}
		full[name] = c
	}
	written, wanted := maps.Clone(k.policies), maps.Clone(policies)
	dc := &DeviceDifference{Name: was.device}
	var oldSpaces, newSpaces []*space
	seen := make(map[string]bool)
	for _, s := range k.spaces {
		c := k.policies[s.source.Name]
		if !touched[c.name] {
			continue
		}
		oldSpaces = append(oldSpaces, s)
		bare := *c
		bare.list = make([]*nft.Chain, 0, len(c.parts))
		for _, part := range c.parts {
			bare.list = append(bare.list, &nft.Chain{Name: c.chain(part)})
			if !seen[c.name] {
				dc.Unread = append(dc.Unread, c.chain(part))
			}
		}
		seen[c.name] = true
		written[s.source.Name] = &bare
	}
	for _, s := range spaces {
		if name := policies[s.source.Name].name; touched[name] {
			newSpaces = append(newSpaces, s)
			wanted[s.source.Name] = full[name]
		}
	}
	old := *was
	old.index = k.index
	dc.Old, _ = assemble(&old, oldSpaces, written, before.facts)
	dc.New, _ = assemble(r, newSpaces, wanted, now)
	next := keep(r, spaces, policies, r.index)
	next.by = by
	r.index = nil
	return next, dc
}

// identitiesAfter numbers spaces, which mostly are those that were numbered.
func identitiesAfter(ids map[string]uint32, spaces []*space) map[string]uint32 {
	if len(ids) == len(spaces) && !slices.ContainsFunc(spaces, func(s *space) bool { _, known := ids[s.name]; return !known }) {
		return ids
	}
	return identities(spaces)
}

// lower returns the policies of spaces: those that follow from what is the same
// as before without rules, others lowered.
func (k *keptDevice) lower(r *resolver, spaces []*space) map[string]*chains {
	others := changedNames(k.resolver, r)
	policies := make(map[string]*chains, len(k.policies))
	room := make([]chains, 0, len(spaces))
	var work []job
	for _, s := range spaces {
		n := s.source
		if policies[n.Name] != nil {
			continue
		}
		room = append(room, chains{})
		c := &room[len(room)-1]
		policies[n.Name] = c
		if o := k.resolver.names[n.Name]; o != nil && k.policies[n.Name] != nil && n.Same(o) && !refers(n, others) {
			*c = *k.policies[n.Name]
			c.name = ""
			continue
		}
		work = append(work, job{n, c})
	}
	lowerAll(r, work)
	return policies
}

// changedNames returns the groups and namespaces that a rule which names them may
// mean something else by.
func changedNames(old, new *resolver) map[string]bool {
	changed := make(map[string]bool)
	for name, n := range new.names {
		o := old.names[name]
		if o == n {
			continue
		}
		if o == nil || o.Device != n.Device || o.Each != n.Each || !slices.Equal(o.Addresses, n.Addresses) || old.ids[name] != new.ids[name] {
			changed[name] = true
		}
	}
	for name := range old.names {
		if new.names[name] == nil {
			changed[name] = true
		}
	}
	groups := make(map[string]*model.Group, len(old.policy.Groups))
	for i := range old.policy.Groups {
		groups[old.policy.Groups[i].Name] = &old.policy.Groups[i]
	}
	for i := range new.policy.Groups {
		g := &new.policy.Groups[i]
		if o := groups[g.Name]; o == nil || !slices.Equal(o.Addresses, g.Addresses) {
			changed[g.Name] = true
		}
		delete(groups, g.Name)
	}
	for name := range groups {
		changed[name] = true
	}
	return changed
}

// refers reports whether a rule of a namespace speaks of one of some names.
func refers(n *model.SocketNamespace, to map[string]bool) bool {
	if len(to) == 0 {
		return false
	}
	for _, h := range model.Hooks {
		for i := range n.Rules(h) {
			r := &n.Rules(h)[i]
			for _, list := range [...][]model.Peer{r.Local, r.Peers} {
				for j := range list {
					if to[list[j].Name] {
						return true
					}
				}
			}
		}
	}
	return false
}

// touched returns the policies that are not the same, or that something that is
// not the same leads to, of both tables.
func (k *keptDevice) touched(r *resolver, spaces []*space, policies map[string]*chains, by map[string]*model.SocketNamespace) map[string]bool {
	touched := make(map[string]bool)
	was := make(map[string]*space, len(k.spaces))
	for _, s := range k.spaces {
		was[s.name] = s
	}
	for _, s := range spaces {
		o := was[s.name]
		delete(was, s.name)
		now := policies[s.source.Name].name
		// Templates say of the whole table whether there are any.
		if o != nil && s.source.Each == "" && o.source.Each == "" && slices.Equal(s.members, o.members) &&
			sameRef(k.index.policies[s.source.Name], r.index.policies[s.source.Name]) {
			continue
		}
		touched[now] = true
		if o != nil {
			touched[k.policies[o.source.Name].name] = true
		}
	}
	for _, s := range was { // is no more
		touched[k.policies[s.source.Name].name] = true
	}
	for name, n := range by {
		if o := k.by[name]; o != nil && (!n.Same(o) || k.policies[o.Name].sum != policies[n.Name].sum) {
			touched[name] = true
		}
	}
	return touched
}

func sameRef(a, b policyRef) bool {
	a.countedUnder, b.countedUnder = "", ""
	return a == b
}
