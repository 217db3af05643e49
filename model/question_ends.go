package model

import (
	"fmt"
	"net/netip"
	"strings"
)

// destination fills in who listens, and at which address.
func (r *questionReader) destination(f *Flow, assume func(string, ...any)) error {
	addr := r.addr
	if r.to == nil {
		to, err := r.listener(assume)
		if err != nil {
			return err
		}
		f.To = to
	} else {
		f.To = *r.to
		if !addr.IsValid() {
			var err error
			if addr, err = r.listenAddress(f, assume); err != nil {
				return err
			}
		}
	}
	f.To.Address = netip.AddrPortFrom(addr, *r.port)
	return nil
}

// listenAddress chooses an address of a named listener.
func (r *questionReader) listenAddress(f *Flow, assume func(string, ...any)) (netip.Addr, error) {
	source := f.From.Address.Addr()
	if n := r.policy.Namespace(f.To.Namespace); f.To.Namespace != "" {
		for _, a := range n.Addresses {
			if !source.IsValid() || source.BitLen() == a.First.BitLen() {
				assume("at %s, an address of %s", a.First, f.To.Namespace)
				return a.First, nil
			}
		}
	}
	switch {
	case f.From.Device != f.To.Device:
		if f.To.Namespace == "" {
			return netip.Addr{}, r.toAt.failed("the address is missing: unmanaged sockets have none of their own, write as unmanaged %s 10.0.0.1:%d", r.proto, *r.port)
		}
		assume("at an address that no rule names: %s lists none", f.To.Namespace)
		return netip.Addr{}, nil
	case source.IsValid() && !source.IsLoopback():
		assume("at %s, the same address", source)
		return source, nil
	case source.Is6():
		assume("at %s", netip.IPv6Loopback())
		return netip.IPv6Loopback(), nil
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	assume("at %s", local)
	return local, nil
}

// listener finds out whose socket is at an address.
func (r *questionReader) listener(assume func(string, ...any)) (End, error) {
	var owners []*SocketNamespace // list the address as theirs
	for i := range r.policy.SocketNamespaces {
		n := &r.policy.SocketNamespaces[i]
		if len(n.Addresses) > 0 && !r.addr.IsLoopback() && n.Owns(r.addr) {
			owners = append(owners, n)
		}
	}
	if len(owners) == 0 && !r.addr.IsLoopback() && r.from.Device != "" {
		assume("%s is another machine: no socket namespace lists the address, and none is named as the listener", r.addr)
		return End{}, nil
	}
	device := r.from.Device
	if device == "" {
		device = HostDevice
	}
	claims, why := r.claimants(owners, device)
	switch {
	case len(claims) == 1 && claims[0].Each != "":
		return End{}, r.at.failed("a socket of template %s may listen there (%s): name the instance, as %s", claims[0].Name, why, claims[0].Name+strings.Repeat("/1000", strings.Count(claims[0].Each, "*")))
	case len(claims) == 1:
		assume("%s listens: %s", claims[0].Name, why)
		return End{Namespace: claims[0].Name, Device: claims[0].Device}, nil
	case len(claims) > 1:
		names := make([]string, len(claims))
		for i, n := range claims {
			names[i] = n.Name
		}
		return End{}, r.at.failed("%s may listen there: say who does, as %s", strings.Join(names, " or "), names[0]+" "+traffic(r.proto, netip.AddrPortFrom(r.addr, *r.port)))
	}
	assume("an unmanaged socket listens: no rule of a socket namespace names the port")
	return End{Device: device}, nil
}

// claimants returns which namespaces can be taken to listen at the address and
// port of the question, and why: those that list the address or, if none or
// several do, those whose rules name the port, bind rules first.
func (r *questionReader) claimants(owners []*SocketNamespace, device string) ([]*SocketNamespace, string) {
	if len(owners) == 1 {
		return owners, fmt.Sprintf("%s is its address", r.addr)
	}
	among := owners
	if len(owners) == 0 {
		for i := range r.policy.SocketNamespaces {
			if n := &r.policy.SocketNamespaces[i]; n.Device == device && n.Owns(r.addr) {
				among = append(among, n)
			}
		}
	}
	for _, h := range []Hook{Bind, Accept} {
		var claims []*SocketNamespace
		why := ""
		for _, n := range among {
			rule, _ := first(n.Rules(h), func(rule *Rule) Mismatch {
				if rule.Action == Deny || len(rule.Ports) == 0 {
					return OtherPort
				}
				return rule.mismatch(r.proto, *r.port)
			})
			if rule != nil {
				claims = append(claims, n)
				why = fmt.Sprintf("%s rule %d at %s names the port", h, rule.Index, rule.Pos)
			}
		}
		if len(claims) > 0 {
			return claims, why
		}
	}
	return owners, ""
}

// sourceOf returns the address that the kernel gives to a socket that connects
// without a bind; the zero Addr if it can't be told.
func (p *Policy) sourceOf(f Flow, assume func(string, ...any)) netip.Addr {
	to := f.To.Address.Addr()
	if to.IsLoopback() {
		if to.Is4() {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return netip.IPv6Loopback()
	}
	n := p.Namespace(f.From.Namespace)
	if f.From.Namespace != "" && len(n.Addresses) > 0 {
		for _, a := range n.Addresses {
			if to.IsValid() && a.First.BitLen() == to.BitLen() && a.First == a.Last {
				assume("from %s, the first address of %s", a.First, f.From.Namespace)
				return a.First
			}
		}
		return netip.Addr{}
	}
	if f.From.Device == f.To.Device && to.IsValid() {
		assume("from %s, as the kernel does to an address of the same device namespace", to)
		return to
	}
	if f.To.Device != "" && f.To.Namespace != "" {
		assume("from an address that no rule of %s names; add: from ADDRESS", f.To.Namespace)
	}
	return netip.Addr{}
}
