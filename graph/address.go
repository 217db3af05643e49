package graph

import (
	"net/netip"
	"slices"
	"sort"

	"github.com/sockns/sockns/model"
)

// class is the set of addresses that all rules at hand treat alike. At least
// one of v4 and v6 is valid: a representative of each family.
type class struct {
	signature string // which predicates hold
	v4, v6    netip.Addr
	ranges    Ranges
}

var (
	families = [...]model.AddressRange{
		model.RangeOf(netip.MustParsePrefix("0.0.0.0/0")),
		model.RangeOf(netip.MustParsePrefix("::/0")),
	}
	// No socket has a wildcard for its address once it talks, and IPv4-mapped
	// addresses are IPv4's.
	nowhere = Ranges{
		model.RangeOf(netip.MustParsePrefix("0.0.0.0/32")),
		model.RangeOf(netip.MustParsePrefix("::/128")),
		model.RangeOf(netip.MustParsePrefix("::ffff:0:0/96")),
	}
	loopback = Ranges{
		model.RangeOf(netip.MustParsePrefix("127.0.0.0/8")),
		model.RangeOf(netip.MustParsePrefix("::1/128")),
	}
)

// classes divides the addresses into those for which the same predicates
// hold. Each predicate is a normal set of addresses. Only addresses of within
// are divided, or all if it is nil; loopback ones only with local.
func classes(predicates []Ranges, within Ranges, local bool) []class {
	all := append(slices.Clone(predicates), loopback)
	var list []class
	index := make(map[string]int)
	for _, family := range families {
		for _, cell := range cells(family, append(slices.Clone(all), nowhere, within)) {
			a := cell.First
			if nowhere.holds(a) || within != nil && !within.holds(a) || !local && a.IsLoopback() {
				continue
			}
			signature := make([]byte, len(all))
			for i, p := range all {
				if p.holds(a) {
					signature[i] = 1
				}
			}
			i, ok := index[string(signature)]
			if !ok {
				i = len(list)
				index[string(signature)] = i
				list = append(list, class{signature: string(signature)})
			}
			c := &list[i]
			if a.Is4() && !c.v4.IsValid() {
				c.v4 = a
			} else if !a.Is4() && !c.v6.IsValid() {
				c.v6 = a
			}
			c.ranges = append(c.ranges, cell)
		}
	}
	return list
}

// cells divides a family at each border of the sets.
func cells(family model.AddressRange, sets []Ranges) []model.AddressRange {
	starts := []netip.Addr{family.First}
	for _, set := range sets {
		for _, r := range set {
			if r.First.BitLen() != family.First.BitLen() {
				continue
			}
			starts = append(starts, r.First)
			if next := r.Last.Next(); next.IsValid() {
				starts = append(starts, next)
			}
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	starts = slices.Compact(starts)
	list := make([]model.AddressRange, len(starts))
	for i, first := range starts {
		list[i] = model.AddressRange{First: first, Last: family.Last}
		if i+1 < len(starts) {
			list[i].Last = starts[i+1].Prev()
		}
	}
	return list
}

// normal returns the same addresses as sorted ranges that do not meet.
func normal(list []model.AddressRange) Ranges {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b model.AddressRange) int { return a.First.Compare(b.First) })
	out := Ranges{}
	for _, r := range sorted {
		if n := len(out); n > 0 && out[n-1].First.BitLen() == r.First.BitLen() {
			if next := out[n-1].Last.Next(); !next.IsValid() || r.First.Compare(next) <= 0 {
				if out[n-1].Last.Less(r.Last) {
					out[n-1].Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// without returns the addresses of both families that are in none of the
// normal sets.
func without(sets []Ranges) Ranges {
	rest := Ranges{}
	for _, family := range families {
		for _, cell := range cells(family, sets) {
			if !slices.ContainsFunc(sets, func(s Ranges) bool { return s.holds(cell.First) }) {
				rest = append(rest, cell)
			}
		}
	}
	return normal(rest)
}

// holds reports whether a normal set has the address.
func (r Ranges) holds(a netip.Addr) bool {
	i := sort.Search(len(r), func(i int) bool { return a.Compare(r[i].First) < 0 })
	return i > 0 && r[i-1].Contains(a)
}
