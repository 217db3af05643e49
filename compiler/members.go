package compiler

import (
	"path"
	"strings"

	"github.com/sockns/sockns/nft"
)

// Members tells which socket namespace a cgroup is in, as a table has it.
type Members struct {
	ByID   map[uint64]Member
	byPath map[string]string // namespace; of the cgroups that still have their id
}

// MembersOf reads the members of a table that [Compile] made. A nil table has
// none. paths has the path of each cgroup of the host by its id.
func MembersOf(t *nft.Table, paths map[uint64]string) Members {
	m := Members{ByID: make(map[uint64]Member), byPath: make(map[string]string)}
	if t == nil {
		return m
	}
	for _, s := range t.Sets {
		if !strings.HasPrefix(s.Name, "identity_") {
			continue
		}
		for _, e := range s.Elements {
			name, cgroup, _ := strings.Cut(e.Comment, " ")
			id := e.Key[0].Num
			m.ByID[id] = Member{Namespace: name, Path: cgroup, ID: id}
			if p, ok := paths[id]; ok {
				m.byPath[p] = name
			}
		}
	}
	return m
}

// NewMembers returns the members of one device namespace from facts.
func NewMembers(list []Member) Members {
	m := Members{ByID: make(map[uint64]Member), byPath: make(map[string]string)}
	for _, member := range list {
		m.ByID[member.ID] = member
		m.byPath[member.Path] = member.Namespace
	}
	return m
}

// Owner returns the namespace of a socket that was created in the cgroup with
// this path: that of the deepest member above it, or "".
func (m Members) Owner(cgroup string) string {
	for p := cgroup; p != "/" && p != "." && p != ""; p = path.Dir(p) {
		if name, ok := m.byPath[p]; ok {
			return name
		}
	}
	return ""
}
