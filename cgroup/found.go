package cgroup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// Found is what of a policy exists in a tree at one moment. All lists are
// sorted, so two snapshots of the same state are equal.
type Found struct {
	Members   []Member   // by place of the namespace in the policy, then by path
	Missing   []Missing  // in the order of the policy
	Conflicts []Conflict // by path
	Doors     []Door     // by path, then by device namespace
}

// Match is a cgroup: its path below the mount and its id (see [Tree.ID]).
type Match struct {
	Path string
	ID   uint64
}

// Member is a cgroup that belongs to a socket namespace, with all below it
// that no deeper member claims.
type Member struct {
	Namespace string // name of the namespace, an instance's for a template: "web", "user/1000"
	Template  string // name of the template, or empty
	Device    string // name of the namespace's device namespace
	Match
	Level int
	// Owner is the user that owns the directory; 0 if the policy names no
	// units. A unit that is not root's is in a tree that was delegated to its
	// owner, who made it and chose its name.
	Owner uint32
}

// Missing is a member of the policy that no cgroup stands for now. A template
// without instances misses nothing.
type Missing struct {
	Namespace string
	Member    model.Member
}

// Conflict is a cgroup that more than one namespace of one device namespace
// claims. It is listed once in Members for each of them.
type Conflict struct {
	Match
	Device     string
	Namespaces []string
}

// Error says which namespaces claim the cgroup and what to do.
func (c Conflict) Error() string {
	return fmt.Sprintf("cgroup %s is claimed by %s: a socket belongs to one socket namespace, take it out of all but one",
		c.Path, strings.Join(c.Namespaces, " and "))
}

// Door is a directory in which members of a template can appear, whose new
// children the kernel's rules can't know yet. A socket at Level+1 or deeper
// below a door, whose cgroup at Level+1 is neither a member nor exempt, came
// in after the snapshot and has to be refused until the next one.
type Door struct {
	Match
	Level     int      // of the door itself
	Device    string   // the device namespace whose templates it serves
	Templates []string // names of the templates whose members can appear below
	Exempt    []Match  // children that exist and are no members: they stay unmanaged
}

// finish sorts what a walk has gathered and adds what is only known at its
// end. places are those of the members' namespaces in the policy.
func (f *Found) finish(places []int) {
	order := make([]int, len(places)) // of members
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(places[a], places[b]), cmp.Compare(f.Members[a].Path, f.Members[b].Path))
	})
	sorted := make([]Member, 0, len(order))
	for _, i := range order {
		sorted = append(sorted, f.Members[i])
	}
	f.Members = sorted
	// A namespace that names a cgroup twice, by unit and by path, has it once.
	f.Members = slices.CompactFunc(f.Members, func(a, b Member) bool {
		return a.Namespace == b.Namespace && a.Path == b.Path
	})
	f.Conflicts = conflicts(f.Members)
	for i := range f.Doors {
		slices.SortFunc(f.Doors[i].Exempt, func(a, b Match) int { return cmp.Compare(a.Path, b.Path) })
	}
	slices.SortFunc(f.Doors, func(a, b Door) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Device, b.Device))
	})
}

// conflicts returns the cgroups that more than one namespace of a device
// namespace has. The namespaces of each are in the order of members.
func conflicts(members []Member) []Conflict {
	type key struct{ path, device string }
	first := make(map[key]int, len(members))
	at := map[key]int{}
	var found []Conflict
	for i, m := range members {
		k := key{m.Path, m.Device}
		j, again := first[k]
		if !again {
			first[k] = i
			continue
		}
		c, known := at[k]
		if !known {
			c = len(found)
			at[k] = c
			found = append(found, Conflict{Match: m.Match, Device: m.Device, Namespaces: []string{members[j].Namespace}})
		}
		found[c].Namespaces = append(found[c].Namespaces, m.Namespace)
	}
	slices.SortFunc(found, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Device, b.Device))
	})
	return found
}
