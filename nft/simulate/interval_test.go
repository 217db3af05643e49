package simulate

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/nft"
)

// TestIntervals asks for each value whether a set of intervals holds it.
func TestIntervals(t *testing.T) {
	port := func(n int) nft.Value { return nft.Value{Type: nft.TypeInetService, Num: uint64(n)} }
	rapid.Check(t, func(t *rapid.T) {
		bounds := rapid.SliceOfNDistinct(rapid.IntRange(0, 60), 0, 12, rapid.ID).Draw(t, "bounds")
		slices.Sort(bounds)
		in := make(map[int]bool)
		var s nft.Set
		for i := 0; i+1 < len(bounds); i += 2 {
			s.Elements = append(s.Elements, nft.Element{Key: []nft.Value{port(bounds[i]), port(bounds[i+1])}})
			for n := bounds[i]; n <= bounds[i+1]; n++ {
				in[n] = true
			}
		}
		s.Elements = rapid.Permutation(s.Elements).Draw(t, "order")
		list := intervalsOf(&s)
		for n := range 62 {
			if list.hold(port(n)) != in[n] {
				t.Fatalf("%d: %v", n, !in[n])
			}
		}
	})
}
