package model

import (
	"fmt"
	"path"
	"strings"
)

// unprotectedBirths warns of namespaces whose sockets are unmanaged between
// the moment that a member's cgroup is made and the moment that the kernel
// knows it: those with a member below no other member. The parent of a
// template's instances needs none, its unknown children are held.
func (r *reader) unprotectedBirths() {
	claimed := make(map[string]bool)
	for i := range r.policy.SocketNamespaces {
		for _, m := range r.policy.SocketNamespaces[i].Members {
			claimed[m.Cgroup] = true
		}
	}
	var names []string
	var at Position
	parent := ""
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		for _, m := range n.Members {
			// Directly below the root nothing could close the gap: the root
			// can't be a member.
			if m.Cgroup != "" && (path.Dir(m.Cgroup) == "/" || underMember(m.Cgroup, claimed)) || strings.HasSuffix(m.Unit, ".slice") {
				continue
			}
			if len(names) == 0 {
				at = m.Pos
				if parent = path.Dir(m.Cgroup); m.Cgroup == "" {
					parent = "/system.slice"
				}
			}
			names = append(names, n.Name)
			break
		}
	}
	if len(names) == 0 {
		return
	}
	const most = 3
	who := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		who += fmt.Sprintf(" and %d more", len(names)-most)
	}
	r.warnf(at, "nothing protects %s in the moment that a member's cgroup is made: until `sockns run` has seen it (or the next apply), its sockets are unmanaged; a socket namespace with a parent among its members, as {cgroup: %s}, closes the gap", who, parent)
}

func underMember(cgroup string, claimed map[string]bool) bool {
	for p := path.Dir(cgroup); p != "/"; p = path.Dir(p) {
		if claimed[p] {
			return true
		}
	}
	return false
}
