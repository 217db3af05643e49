package compiler

import (
	"maps"
	"slices"

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
		spaces := was.spacesAfter(p, d.Name, old.facts, f)
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
	r := newResolver(p, names, was.device, facts, spaces, k.identitiesAfter(spaces), before.passes(spaces))
	r.lists = k.listsAfter(r, spaces)
	if r.passes != was.passes || r.lists.least != was.lists.least || facts.Ephemeral() != was.facts.Ephemeral() || !slices.Equal(r.deep, was.deep) || !maps.Equal(r.always, was.always) {
		return nil, nil
	}
	if len(spaces) == len(k.spaces) && sameNames(spaces, k.spaces) {
		r.named = k.index.names
	} else {
		for name, id := range was.ids {
			if now, stays := r.ids[name]; stays && now != id {
				return nil, nil
			}
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
			rename(c, r.ids[first.Name])
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
	next := keep(r, spaces, policies, by, r.index)
	r.index, r.named = nil, nil
	return next, dc
}

// identitiesAfter numbers spaces, which mostly are those that were numbered.
func (k *keptDevice) identitiesAfter(spaces []*space) map[string]uint32 {
	if k != nil && len(k.spaces) == len(spaces) && sameNames(spaces, k.spaces) {
		return k.resolver.ids
	}
	return identities(spaces)
}

// listsAfter is [newLists] that counts no lists where all that can have come
// since are not too many.
func (k *keptDevice) listsAfter(r *resolver, spaces []*space) *lists {
	most := k.resolver.lists.distinct
	was, is := k.resolver.policy, r.policy
	if !slices.EqualFunc(was.Groups, is.Groups, func(a, b model.Group) bool { return a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses) }) {
		return newLists(r, spaces)
	}
	for i := range is.SocketNamespaces {
		n := &is.SocketNamespaces[i]
		if i < len(was.SocketNamespaces) && n.Same(&was.SocketNamespaces[i]) {
			continue
		}
		most++
		for _, h := range model.Hooks {
			for j := range n.Rules(h) {
				most += 3 + len(n.Rules(h)[j].Peers) + len(n.Rules(h)[j].Local)
			}
		}
	}
	if most > mostListSets || k.resolver.lists.least > 0 {
		return newLists(r, spaces)
	}
	return &lists{known: make(map[listKey]*addressList), distinct: most}
}

// lower returns the policies of spaces: those that follow from what is the same
// as before without rules, others lowered.
func (k *keptDevice) lower(r *resolver, spaces []*space) map[string]*chains {
	others := changedNames(k.resolver, r)
	policies := make(map[string]*chains, len(k.policies))
	copies := make(map[*chains]*chains) // those that are alike stay one
	var work []job
	var last *model.SocketNamespace
	for i, s := range spaces {
		n := s.source
		if n == last { // an instance of the template before it
			continue
		}
		last = n
		var o *model.SocketNamespace
		if i < len(k.spaces) && k.spaces[i].source.Name == n.Name {
			o = k.spaces[i].source
		} else {
			o = k.resolver.names[n.Name]
		}
		if o != nil && n.Same(o) && !refers(n, others) {
			if was := k.policies[n.Name]; was != nil {
				c := copies[was]
				if c == nil {
					c = was.brief()
					c.name = ""
					copies[was] = c
				}
				policies[n.Name] = c
				continue
			}
		}
		c := &chains{}
		policies[n.Name] = c
		work = append(work, job{n, c})
	}
	lowerAll(r, work)
	return policies
}

// spacesAfter is [spacesOf] for facts and a policy that mostly are those before.
func (k *keptDevice) spacesAfter(p *model.Policy, device string, before, now Facts) []*space {
	if k == nil || !sameMemory(before.Members, now.Members) || !sameMemory(before.Missing, now.Missing) {
		return spacesOf(p, device, now)
	}
	room := make([]space, len(k.spaces))
	spaces := make([]*space, 0, len(k.spaces))
	at := 0
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		if n.Device != device {
			continue
		}
		if at == len(k.spaces) || k.spaces[at].name != n.Name || k.spaces[at].source.Each != n.Each {
			return spacesOf(p, device, now)
		}
		for source := k.spaces[at].source; at < len(k.spaces) && k.spaces[at].source == source; at++ {
			room[at] = *k.spaces[at]
			room[at].source = n
			spaces = append(spaces, &room[at])
		}
	}
	if at < len(k.spaces) {
		return spacesOf(p, device, now)
	}
	return spaces
}

func sameMemory[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func sameNames(a, b []*space) bool {
	for i := range a {
		if a[i].name != b[i].name {
			return false
		}
	}
	return true
}

// changedNames returns the groups and namespaces that a rule which names them may
// mean something else by.
func changedNames(old, new *resolver) map[string]bool {
	changed := make(map[string]bool)
	was := old.policy.SocketNamespaces
	for i := range new.policy.SocketNamespaces {
		n := &new.policy.SocketNamespaces[i]
		name := n.Name
		var o *model.SocketNamespace
		if i < len(was) && was[i].Name == name {
			o = &was[i]
		} else {
			o = old.names[name]
		}
		if o == nil || o.Device != n.Device || o.Each != n.Each || !slices.Equal(o.Addresses, n.Addresses) || new.named == nil && old.ids[name] != new.ids[name] {
			changed[name] = true
		}
	}
	for i := range was {
		if now := new.policy.SocketNamespaces; i >= len(now) || now[i].Name != was[i].Name {
			if new.names[was[i].Name] == nil {
				changed[was[i].Name] = true
			}
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
	was := make(map[string]*space) // those that do not stand at the same place
	aligned := func(i int) bool {
		return i < len(spaces) && i < len(k.spaces) && spaces[i].name == k.spaces[i].name
	}
	for i, s := range k.spaces {
		if !aligned(i) {
			was[s.name] = s
		}
	}
	for i, s := range spaces {
		var o *space
		if aligned(i) {
			o = k.spaces[i]
		} else {
			o = was[s.name]
			delete(was, s.name)
		}
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
