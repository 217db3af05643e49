package simulate

import (
	"slices"

	"github.com/sockns/sockns/nft"
)

// intervals are those of a set, in order.
type intervals []nft.Element

func intervalsOf(s *nft.Set) intervals {
	sorted := slices.Clone(s.Elements)
	slices.SortFunc(sorted, func(a, b nft.Element) int { return compare(a.Key[0], b.Key[0]) })
	return sorted
}

// hold reports whether one of them has the value.
func (list intervals) hold(v nft.Value) bool {
	i, first := slices.BinarySearchFunc(list, v, func(e nft.Element, v nft.Value) int { return compare(e.Key[0], v) })
	return first || i > 0 && compare(v, list[i-1].Key[1]) <= 0
}

// compare orders values of one type; there are no addresses in those of others.
func compare(a, b nft.Value) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	switch {
	case a.Num < b.Num:
		return -1
	case a.Num > b.Num:
		return 1
	}
	return 0
}
