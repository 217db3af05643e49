package flowset

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// drawSet draws from few points at the edges of two spaces, so that ranges
// touch, overlap and reach the ends.
func drawSet(t *rapid.T, points []Point) Set {
	var ranges []Range
	for range rapid.IntRange(0, 4).Draw(t, "ranges") {
		a, b := rapid.IntRange(0, len(points)-1).Draw(t, "a"), rapid.IntRange(0, len(points)-1).Draw(t, "b")
		if a > b {
			a, b = b, a
		}
		if points[a].Space != points[b].Space {
			b = a
		}
		ranges = append(ranges, Range{points[a], points[b]})
	}
	return setOf(ranges...)
}

func TestSets(t *testing.T) {
	var points []Point
	for space := range uint8(2) {
		for _, hi := range []uint64{0, 1, math.MaxUint64} {
			for _, lo := range []uint64{0, 1, math.MaxUint64 - 1, math.MaxUint64} {
				points = append(points, Point{space, hi, lo})
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSet(t, points), drawSet(t, points)
		sets := map[string]Set{"union": a.Union(b), "intersection": a.Intersect(b), "difference": a.Minus(b)}
		for _, p := range points {
			in, too := a.Contains(p), b.Contains(p)
			for name, want := range map[string]bool{"union": in || too, "intersection": in && too, "difference": in && !too} {
				if got := sets[name].Contains(p); got != want {
					t.Fatalf("%s of %v and %v has %v: %v", name, a, b, p, got)
				}
			}
		}
		for name, s := range sets {
			if !s.Equal(setOf(s...)) {
				t.Fatalf("%s of %v and %v is not in its one form: %v", name, a, b, s)
			}
		}
		if a.Overlaps(b) == a.Intersect(b).Empty() {
			t.Fatalf("overlap of %v and %v: %v", a, b, a.Overlaps(b))
		}
		if !a.Union(b).Covers(a) || a.Covers(b) != b.Minus(a).Empty() {
			t.Fatalf("covers: %v %v", a, b)
		}
	})
}
