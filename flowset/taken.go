package flowset

import (
	"cmp"
	"slices"

	"github.com/sockns/sockns/model"
)

// claims are the ports that bind rules give to the namespaces of a device
// namespace, for TCP or UDP; see bindError in package model.
type claims struct {
	all  Set            // that any namespace may bind
	only map[string]Set // that one namespace alone may bind, by its name
}

// but returns the ports that others than a namespace may bind.
func (c *claims) but(name string) Set { return c.all.Minus(c.only[name]) }

// shift is how the ports that others may bind move from one policy to another.
type shift struct{ gain, loss Set }

// breadth says which namespaces' claims count: those without addresses of
// their own everywhere, the others on loopback, and to such a namespace.
type breadth struct {
	proto     model.Protocol
	wide      bool
	addresses string // of a namespace that shares some: those of who shares them count too
}

// claimed gathers the claims of a device namespace.
func (w *world) claimed(device string) map[breadth]*claims {
	found := make(map[breadth]*claims)
	for _, proto := range [...]model.Protocol{model.TCP, model.UDP} {
		var narrow, wide []portClaim
		for i := range w.policy.SocketNamespaces {
			n := &w.policy.SocketNamespaces[i]
			if n.Device != device {
				continue
			}
			for _, p := range claimedBy(n, proto, nil) {
				wide = append(wide, portClaim{p, n.Name})
				if len(n.Addresses) == 0 {
					narrow = append(narrow, portClaim{p, n.Name})
				}
			}
		}
		found[breadth{proto: proto}], found[breadth{proto: proto, wide: true}] = sweep(narrow), sweep(wide)
		w.claimedByShare(device, proto, found)
	}
	return found
}

// claimedByShare gathers the claims that count to namespaces that share
// addresses, once for all that list the same.
func (w *world) claimedByShare(device string, proto model.Protocol, found map[breadth]*claims) {
	all := w.policy.SocketNamespaces
	for i := range all {
		n := &all[i]
		at := breadth{proto: proto, addresses: w.shared[subject{n.Name, n.Device}]}
		if n.Device != device || at.addresses == "" || found[at] != nil {
			continue
		}
		var list []portClaim
		for j := range all {
			if m := &all[j]; m.Device == device && n.Shares(m) {
				for _, p := range claimedBy(m, proto, nil) {
					list = append(list, portClaim{p, m.Name})
				}
			}
		}
		found[at] = sweep(list)
	}
}

// claimsPort reports whether a bind rule gives ports of a protocol to its
// namespace.
func claimsPort(r *model.Rule, proto model.Protocol) bool {
	return r.Action == model.Allow && len(r.Local) == 0 && len(r.Ports) > 0 && (len(r.Protocols) == 0 || slices.Contains(r.Protocols, proto))
}

// claimedBy returns the ports that bind rules give to a namespace, but those
// that are left out (nil: none).
func claimedBy(n *model.SocketNamespace, proto model.Protocol, without func(i int) bool) Set {
	var ports Set
	for i := range n.Bind {
		if r := &n.Bind[i]; claimsPort(r, proto) && (without == nil || !without(i)) {
			ports = ports.Union(portsOf(r))
		}
	}
	return ports
}

// portClaim is a range of ports of a namespace; those of one don't overlap.
type portClaim struct {
	ports Range
	owner string
}

// sweep finds out which ports have one owner.
func sweep(list []portClaim) *claims {
	type event struct {
		at    uint64
		owner string
		opens bool
	}
	var events []event
	c := &claims{only: make(map[string]Set)}
	var ranges []Range
	for _, p := range list {
		ranges = append(ranges, p.ports)
		events = append(events, event{p.ports.First.Lo, p.owner, true}, event{p.ports.Last.Lo + 1, p.owner, false})
	}
	c.all = setOf(ranges...)
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	open := make(map[string]bool)
	for i, e := range events {
		if e.opens {
			open[e.owner] = true
		} else {
			delete(open, e.owner)
		}
		if i+1 == len(events) || events[i+1].at == e.at || len(open) != 1 {
			continue
		}
		for owner := range open {
			c.only[owner] = c.only[owner].append(numbers(int(e.at), int(events[i+1].at)-1))
		}
	}
	return c
}
