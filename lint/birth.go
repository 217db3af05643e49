package lint

import (
	"fmt"
	"path"
	"strings"

	"github.com/sockns/sockns/model"
)

// births finds namespaces whose sockets are unmanaged between
// the moment that a member's cgroup is made and the moment that the kernel
// knows it: those with a member below no other member. The parent of a
// template's instances needs none, its unknown children are held.
func (c *checker) births() {
	claimed := make(map[string]bool)
	for i := range c.policy.SocketNamespaces {
		for _, m := range c.policy.SocketNamespaces[i].Members {
			claimed[m.Cgroup] = true
		}
	}
	var names []string
	var at model.Position
	parent := ""
	for i := range c.policy.SocketNamespaces {
		n := &c.policy.SocketNamespaces[i]
		for _, m := range n.Members {
			cgroup := m.Cgroup
			if m.Unit != "" { // where it is unless it says otherwise
				cgroup = "/system.slice/" + m.Unit
			}
			// Directly below the root nothing could close the gap: the root
			// can't be a member.
			if path.Dir(cgroup) == "/" || underMember(cgroup, claimed) || strings.HasSuffix(m.Unit, ".slice") {
				continue
			}
			if len(names) == 0 {
				at, parent = m.Pos, path.Dir(cgroup)
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
	c.add(Finding{
		ID: UnprotectedBirth, Pos: at, Namespace: names[0],
		Message: fmt.Sprintf("nothing protects %s in the moment that a member's cgroup is made: until `sockns run` has seen it (or the next apply), its sockets are unmanaged", who),
		Remedy:  fmt.Sprintf("a socket namespace with a parent among its members, as {cgroup: %s}, closes the gap", parent),
	})
}

func underMember(cgroup string, claimed map[string]bool) bool {
	for p := path.Dir(cgroup); p != "/"; p = path.Dir(p) {
		if claimed[p] {
			return true
		}
	}
	return false
}
