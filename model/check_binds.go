package model

import (
	"cmp"
	"net/netip"
	"slices"
)

// bindClaim is one range of ports that a rule lets a namespace bind.
type bindClaim struct {
	n     *SocketNamespace
	rule  *Rule
	ports PortRange
	order int
}

// ambiguousBinds warns of two namespaces of a device namespace that rules let
// bind the same address, protocol and port. Loopback, which belongs to every
// namespace without being listed, does not count. Each namespace is warned of
// once, with the first that it meets.
func (r *reader) ambiguousBinds() {
	type place struct {
		device string
		proto  Protocol
	}
	claims := make(map[place][]bindClaim)
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		for j := range n.Bind {
			rule := &n.Bind[j]
			if rule.Action != Allow || len(rule.Local) > 0 || deniedBefore(n.Bind[:j], rule) {
				continue
			}
			ports := rule.Ports
			if len(ports) == 0 {
				ports = []PortRange{{1, 65535}}
			}
			for _, proto := range [...]Protocol{TCP, UDP} {
				if !rule.coversProtocol(proto) {
					continue
				}
				for _, pr := range ports {
					at := place{n.Device, proto}
					claims[at] = append(claims[at], bindClaim{n, rule, pr, i})
				}
			}
		}
	}
	warned := make(map[*SocketNamespace]bool)
	for _, proto := range [...]Protocol{TCP, UDP} {
		for _, d := range r.policy.DeviceNamespaces {
			r.ambiguousIn(claims[place{d.Name, proto}], proto, warned)
		}
	}
}

// deniedBefore reports whether an earlier rule denies a part of what the rule
// allows: then somebody has thought about it.
func deniedBefore(earlier []Rule, rule *Rule) bool {
	return slices.ContainsFunc(earlier, func(d Rule) bool {
		if d.Action != Deny || d.Audit {
			return false
		}
		return len(d.Ports) == 0 || len(rule.Ports) == 0 || slices.ContainsFunc(d.Ports, func(a PortRange) bool {
			return slices.ContainsFunc(rule.Ports, func(b PortRange) bool { return a.First <= b.Last && b.First <= a.Last })
		})
	})
}

func (r *reader) ambiguousIn(claims []bindClaim, proto Protocol, warned map[*SocketNamespace]bool) {
	slices.SortStableFunc(claims, func(a, b bindClaim) int { return cmp.Compare(a.ports.First, b.ports.First) })
	// What was met so far, so that a claim is compared with few others.
	var anywhere, wide, all []bindClaim
	byAddress := make(map[netip.Addr][]bindClaim)
	for _, c := range claims {
		meet := func(list []bindClaim, address AddressRange) {
			for _, other := range list {
				if other.n == c.n || other.ports.Last < c.ports.First {
					continue
				}
				if address.First.IsValid() && len(other.n.Addresses) > 0 && !slices.ContainsFunc(other.n.Addresses, func(a AddressRange) bool {
					return a.Contains(address.First) || address.Contains(a.First)
				}) {
					continue
				}
				r.ambiguous(other, c, proto, warned)
				return
			}
		}
		if len(c.n.Addresses) == 0 {
			meet(all, AddressRange{})
			anywhere = append(anywhere, c)
		}
		for _, a := range c.n.Addresses {
			meet(anywhere, AddressRange{})
			meet(wide, a)
			if a.First == a.Last {
				meet(byAddress[a.First], a)
				byAddress[a.First] = append(byAddress[a.First], c)
			} else {
				meet(all, a)
				wide = append(wide, c)
			}
		}
		all = append(all, c)
	}
}

func (r *reader) ambiguous(a, b bindClaim, proto Protocol, warned map[*SocketNamespace]bool) {
	first, second := a, b
	if b.order < a.order {
		first, second = b, a
	}
	if warned[second.n] {
		return
	}
	warned[second.n] = true
	ports := PortRange{max(a.ports.First, b.ports.First), min(a.ports.Last, b.ports.Last)}
	r.warnf(second.rule.Pos, "ambiguous: %s may bind %s/%s by this rule, and so may %s by rule %d at %s; %s is asked first (the order of the file). Give them addresses of their own, or take the port from one",
		second.n.Name, proto, ports, first.n.Name, first.rule.Index, first.rule.Pos, first.n.Name)
}
