package controller

import (
	"strings"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/model"
)

// claims answers which namespace a cgroup belongs to by its path alone.
type claims struct {
	exact     map[string]*model.SocketNamespace
	units     map[string]*model.SocketNamespace
	templates []*model.SocketNamespace
	doors     []string // patterns of the directories in which a template's instances can appear
	mixed     bool     // some device namespaces claim on their own what others claim too
}

func claimsOf(p *model.Policy) *claims {
	c := &claims{exact: make(map[string]*model.SocketNamespace), units: make(map[string]*model.SocketNamespace)}
	claim := func(in map[string]*model.SocketNamespace, key string, n *model.SocketNamespace) {
		c.mixed = c.mixed || in[key] != nil && in[key] != n
		in[key] = n
	}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		if n.Each != "" {
			c.templates = append(c.templates, n)
			c.doors = append(c.doors, cgroup.DoorPatterns(n.Each)...)
		}
		for _, m := range n.Members {
			if m.Unit != "" {
				claim(c.units, m.Unit, n)
			} else {
				claim(c.exact, m.Cgroup, n)
			}
		}
	}
	return c
}

// claim is who claims a path: a namespace or instance and its device
// namespace; "" if nobody does.
type claim struct {
	namespace, device string
	unit              bool // by the name of its directory, which has to be root's
}

// of returns who claims a path. sure is false if only a look at the whole tree
// can tell.
func (c *claims) of(path string) (by claim, sure bool) {
	if c.mixed {
		return claim{}, false
	}
	for _, door := range c.doors {
		if _, ok := model.InstanceName("", door, path); ok {
			return claim{}, false
		}
	}
	n := c.exact[path]
	if unit := c.units[cgroup.UnitOf(path[strings.LastIndexByte(path, '/')+1:])]; unit != nil {
		if n != nil {
			return claim{}, false // by path and by name
		}
		n, by.unit = unit, true
	}
	if n != nil {
		by.namespace, by.device = n.Name, n.Device
	}
	for _, t := range c.templates {
		instance, ok := model.InstanceName(t.Name, t.Each, path)
		if !ok {
			continue
		}
		if by.namespace != "" {
			return claim{}, false // claimed twice, or in two device namespaces
		}
		by.namespace, by.device = instance, t.Device
	}
	return by, true
}
