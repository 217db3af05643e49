package model

import (
	"cmp"
	"slices"
)

// Sharing returns the namespaces that share an address with another one of
// their device namespace, of those that list addresses; see
// [SocketNamespace.Shares].
func (p *Policy) Sharing() map[*SocketNamespace]bool {
	type listed struct {
		AddressRange
		by *SocketNamespace
	}
	devices := make(map[string][]listed)
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, a := range n.Addresses {
			devices[n.Device] = append(devices[n.Device], listed{a, n})
		}
	}
	sharing := make(map[*SocketNamespace]bool)
	for _, all := range devices {
		slices.SortFunc(all, func(a, b listed) int {
			return cmp.Or(a.First.Compare(b.First), b.Last.Compare(a.Last))
		})
		// Of what begins before, what reaches furthest overlaps all else that
		// reaches as far as here.
		var furthest listed
		for _, a := range all {
			if furthest.by != nil && furthest.by != a.by && furthest.Contains(a.First) {
				sharing[furthest.by], sharing[a.by] = true, true
			}
			if furthest.by == nil || furthest.Last.Less(a.Last) {
				furthest = a
			}
		}
	}
	return sharing
}
