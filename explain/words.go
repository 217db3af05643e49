package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// why says in words what decided.
func why(p *model.Policy, f model.Flow, a ask) string {
	v := a.verdict
	n := p.Namespace(a.us.Namespace)
	switch v.Reason {
	case model.ByRule:
		return fmt.Sprintf("rule %d at %s", v.Rule.Index, v.Rule.Pos)
	case model.BySame:
		return "both sockets are in the same socket namespace"
	case model.ByUnmanaged:
		switch {
		case a.us.Namespace != "":
			return fmt.Sprintf("the kernel does not show the receiving socket of %s", f.Protocol)
		case a.us.Device == "":
			return "another machine is not this policy's"
		}
		return "no socket namespace claims the socket"
	}
	switch {
	case v.Hook == model.Bind && !n.Owns(a.us.Address.Addr()) && v.Error == model.EADDRNOTAVAIL:
		return fmt.Sprintf("%s is no address of %s (%s)", a.us.Address.Addr(), n.Name, addresses(n.Addresses))
	case v.Hook == model.Bind && a.us.Address.Port() == 0:
		return "the kernel picks the port, which needs no rule"
	}
	if d := n.Default.For(v.Hook); d != nil {
		return fmt.Sprintf("the default at %s", d.Pos)
	}
	switch {
	case v.Hook == model.Bind && len(n.Bind) == 0:
		return "the namespace lists no bind rules"
	case v.Error == model.EADDRINUSE:
		return "no rule allows it, and another socket namespace may bind the port"
	case len(n.Rules(v.Hook)) == 0:
		return fmt.Sprintf("the namespace lists no %s rules, and none means deny", v.Hook)
	}
	return "no rule allows it, and the default is deny"
}

// mismatch says in words why a rule does not speak of the flow.
func mismatch(p *model.Policy, f model.Flow, a ask, r *model.Rule, m model.Mismatch) string {
	switch m {
	case model.OtherProtocol:
		if len(r.Protocols) == 0 {
			return fmt.Sprintf("it is for protocols with ports, and %s has none", f.Protocol)
		}
		return fmt.Sprintf("it is for %s, this is %s", join(r.Protocols), f.Protocol)
	case model.OtherPort:
		port := f.To.Address.Port()
		if r.Hook == model.Bind {
			port = a.us.Address.Port()
		}
		return fmt.Sprintf("it is for port %s, this is %d", join(r.Ports), port)
	case model.OtherLocal:
		return otherLocal(p, a, r)
	case model.OnlyCounts:
		return "it matches, but is in audit: it only counts"
	}
	return otherPeer(p, f, a, r)
}

func otherLocal(p *model.Policy, a ask, r *model.Rule) string {
	local := a.us.Local()
	n := p.Namespace(a.us.Namespace)
	switch {
	case len(r.Local) == 0:
		return fmt.Sprintf("it is for the addresses of %s (%s), this is on %s", n.Name, addresses(n.Addresses), local)
	case !local.IsValid() && r.Hook != model.Bind:
		return fmt.Sprintf("it is for the local address %s, this is on one that the kernel picks", join(r.Local))
	case !local.IsValid() || local.IsUnspecified():
		return fmt.Sprintf("it is for the local address %s, this is on the wildcard", join(r.Local))
	}
	return fmt.Sprintf("it is for the local address %s, this is on %s", join(r.Local), local)
}

func otherPeer(p *model.Policy, f model.Flow, a ask, r *model.Rule) string {
	s := fmt.Sprintf("it is for %s, the other end is %s", join(r.Peers), who(a.them))
	byIdentity := a.us.Device != "" && a.us.Device == a.them.Device
	for _, peer := range r.Peers {
		if peer.Kind != model.PeerNamespace || !slices.ContainsFunc(p.PeerAddresses(peer, nil), func(x model.AddressRange) bool { return x.Contains(a.them.Local()) }) {
			continue
		}
		if byIdentity {
			return fmt.Sprintf("%s: its address is one of %s, but in one device namespace a socket is known by its cgroup", s, peer.Name)
		}
	}
	if !byIdentity && a.them.Device != "" {
		return s + ", known by its address alone: it is in another device namespace"
	}
	return s
}

// who names an end with its address.
func who(e model.End) string {
	name := e.Namespace
	switch {
	case e.Device == "":
		name = "another machine"
	case name == "":
		name = "an unmanaged socket"
	}
	if a := e.Local(); a.IsValid() {
		return fmt.Sprintf("%s at %s", name, a)
	}
	return name
}

func addresses(list []model.AddressRange) string {
	if len(list) == 0 {
		return "all"
	}
	return join(list) + " and loopback"
}

// join lists a few of many.
func join[T any](list []T) string {
	const most = 6
	var words []string
	for i, x := range list {
		if i == most {
			words = append(words, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		words = append(words, fmt.Sprint(x))
	}
	return strings.Join(words, ", ")
}
