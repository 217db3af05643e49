package simulate

import (
	"slices"

	"github.com/sockns/sockns/nft"
)

// intervals are those of a set, in order.
type intervals []nft.Element

func intervalsOf(s *nft.Set) intervals {
	sorted := slices.Clone(s.Elements)
	slices.SortFunc(sorted, func(a, b nft.Element) int { return a.Key[0].Compare(b.Key[0]) })
	return sorted
}

// hold reports whether one of them has the value.
func (list intervals) hold(v nft.Value) bool {
	i, first := slices.BinarySearchFunc(list, v, func(e nft.Element, v nft.Value) int { return e.Key[0].Compare(v) })
	return first || i > 0 && v.Compare(list[i-1].Key[1]) <= 0
}
