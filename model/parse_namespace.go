package model

import (
	"path"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

func (r *reader) namespace(k, v *yaml.Node) {
	ok := r.checkName(k, "socket namespace")
	n := SocketNamespace{Name: k.Value, Device: HostDevice, Mode: Enforce, Pos: r.at(k)}
	var members *yaml.Node
	r.fields(v, "socket namespace "+k.Value, namespaceKeys, func(name string, k, v *yaml.Node) {
		switch name {
		case "deviceNamespace":
			if s, ok := r.text(v, name); ok {
				n.Device = s
				r.deviceRefs = append(r.deviceRefs, deviceRef{s, r.at(v)})
			}
		case "members":
			members = k
			n.Members = r.members(v)
		case "each":
			n.EachPos = r.at(v)
			n.Each, _ = r.pattern(v)
		case "addresses":
			for _, a := range r.items(v, name, true) {
				if rng, ok := r.address(a, "addresses"); ok {
					n.Addresses = append(n.Addresses, rng)
				}
			}
		case "mode":
			if s, ok := r.word(v, name, string(Enforce), string(Audit)); ok {
				n.Mode = Mode(s)
			}
		case "bind":
			n.Bind = r.rules(Bind, v)
		case "connect":
			n.Connect = r.rules(Connect, v)
		case "accept":
			n.Accept = r.rules(Accept, v)
		case "default":
			n.Default = r.defaults(v)
		}
	})
	switch {
	case members != nil && n.EachPos != (Position{}):
		r.errorf(n.EachPos, "socket namespace %s has both members and each: a template has no members of its own; keep one", n.Name)
	case members == nil && n.EachPos == (Position{}) && v.Kind != yaml.ScalarNode:
		r.errorf(n.Pos, "socket namespace %s has no members: say which cgroups or units belong to it under members, or give a pattern under each", n.Name)
	}
	if ok {
		r.names = append(r.names, declared{name: n.Name, pos: n.Pos})
		r.policy.SocketNamespaces = append(r.policy.SocketNamespaces, n)
	}
}

func (r *reader) members(v *yaml.Node) []Member {
	var list []Member
	for _, item := range r.items(v, "members", false) {
		var m Member
		valid, keys := true, 0
		r.fields(item, "a member", memberKeys, func(name string, k, v *yaml.Node) {
			if keys++; keys == 2 {
				r.errorf(r.at(k), "a member is one cgroup or one unit: write two members")
				valid = false
				return
			}
			s, ok := r.text(v, name)
			m.Pos = r.at(v)
			switch {
			case !ok:
				valid = false
			case name == "cgroup":
				m.Cgroup, ok = s, r.checkCgroup(v, s)
			default:
				m.Unit, ok = s, r.checkUnit(v, s)
			}
			valid = valid && ok
		})
		if item = r.node(item); item != nil && item.Kind == yaml.MappingNode && len(item.Content) == 0 {
			r.errorf(r.at(item), "a member is empty: write {cgroup: /path} or {unit: name.service}")
		}
		if valid && m != (Member{}) {
			list = append(list, m)
		}
	}
	return list
}

func (r *reader) checkCgroup(n *yaml.Node, s string) bool {
	switch {
	case !strings.HasPrefix(s, "/"):
		r.errorf(r.at(n), "cgroup is %q; it has to be the absolute path below the cgroup2 mount, as /system.slice/nginx.service", s)
	case s == "/":
		r.errorf(r.at(n), "the root cgroup can't be a member: it holds every socket of the machine, the kernel's and your own session's; name a slice")
	case strings.Contains(s, "*"):
		r.errorf(r.at(n), "cgroup %q has a wildcard: a member is one cgroup; for one namespace for each match write each: %s instead of members", s, s)
	case strings.ContainsFunc(s, unicode.IsControl):
		r.errorf(r.at(n), "cgroup is %q; a path has no control characters: remove them", s)
	case path.Clean(s) != s:
		r.errorf(r.at(n), "cgroup is %q; write it without //, /./, /../ and a slash at the end: %s", s, path.Clean(s))
	default:
		return true
	}
	return false
}

// unitSuffixes are those of systemd units that have a cgroup (systemd.unit(5)).
var unitSuffixes = []string{".service", ".slice", ".scope", ".socket", ".mount", ".swap"}

func (r *reader) checkUnit(n *yaml.Node, s string) bool {
	if strings.Contains(s, "/") {
		r.errorf(r.at(n), "unit is %q; a unit is a name without a path: for a path write cgroup", s)
		return false
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		r.errorf(r.at(n), "unit is %q; a name has no control characters: remove them", s)
		return false
	}
	for _, suffix := range unitSuffixes {
		if strings.HasSuffix(s, suffix) && len(s) > len(suffix) {
			return true
		}
	}
	r.errorf(r.at(n), "unit is %q; write the full name of a unit that has a cgroup, as %s.service (allowed ends: %s)", s, s, oneOf(unitSuffixes))
	return false
}

// pattern reads a template's pattern: a cgroup path with at most one * in
// each component.
func (r *reader) pattern(v *yaml.Node) (string, bool) {
	s, ok := r.text(v, "each")
	if !ok {
		return "", false
	}
	switch {
	case !strings.HasPrefix(s, "/") || path.Clean(s) != s || s == "/":
		r.errorf(r.at(v), "each is %q; it has to be the absolute path of cgroups below the cgroup2 mount with a * in it, as /user.slice/user-*.slice", s)
		return "", false
	case !strings.Contains(s, "*"):
		r.errorf(r.at(v), "each is %q, without a *: for one cgroup write members: [{cgroup: %s}]", s, s)
		return "", false
	}
	for _, c := range strings.Split(s, "/") {
		if strings.Count(c, "*") > 1 {
			r.errorf(r.at(v), "each has %q, with more than one *: a component of the path has at most one", c)
			return "", false
		}
	}
	if strings.ContainsAny(s, "?[]\x00") {
		r.errorf(r.at(v), "each is %q; * is the only wildcard, and stands for one or more characters within a component", s)
		return "", false
	}
	return s, true
}

func (r *reader) defaults(v *yaml.Node) Defaults {
	var d Defaults
	r.fields(v, "default", defaultsKeys, func(name string, _, v *yaml.Node) {
		switch name {
		case "bind":
			d.Bind = r.outcome(Bind, v)
		case "connect":
			d.Connect = r.outcome(Connect, v)
		case "accept":
			d.Accept = r.outcome(Accept, v)
		}
	})
	return d
}

// outcome reads a default: allow, deny, or {action: deny, error: ...}.
func (r *reader) outcome(h Hook, v *yaml.Node) *Outcome {
	n := r.node(v)
	if n == nil {
		return nil
	}
	o := Outcome{Action: Allow, Pos: r.at(n)}
	if n.Kind != yaml.MappingNode {
		s, ok := r.word(n, "the default of "+h.String(), string(Allow), string(Deny))
		if !ok {
			return nil
		}
		o.Action = Action(s)
		return &o
	}
	var errnoAt *yaml.Node
	r.fields(n, "the default of "+h.String(), outcomeKeys, func(name string, _, v *yaml.Node) {
		if name == "error" {
			errnoAt = v
			o.Error = r.errno(h, v)
			return
		}
		if s, ok := r.word(v, name, string(Allow), string(Deny)); ok {
			o.Action = Action(s)
		}
	})
	if errnoAt != nil && o.Action == Allow {
		r.errorf(r.at(errnoAt), "error without a denial: add action: deny, or remove error")
	}
	return &o
}
