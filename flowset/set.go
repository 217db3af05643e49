// Package flowset is an exact algebra on sets of flows. What the rules of a
// hook say is a function from points (protocol, local address, port, who the
// peer is, the peer's address) to an answer; a [Diagram] holds such a function,
// and two that say the same are the same diagram. From it follow the boxes in
// which two policies differ ([Compare]) and what is superfluous in one.
//
// The package is pure, and the reference for what a rule means is
// [model.Decide]: everything here is tested against it.
package flowset

import (
	"cmp"
	"math"
	"slices"
)

// Point is a coordinate: of 128 bits, in one of several spaces that are never
// adjacent, as the two families of addresses are.
type Point struct {
	Space  uint8
	Hi, Lo uint64
}

func (p Point) compare(q Point) int {
	if p.Space != q.Space {
		return cmp.Compare(p.Space, q.Space)
	}
	if p.Hi != q.Hi {
		return cmp.Compare(p.Hi, q.Hi)
	}
	return cmp.Compare(p.Lo, q.Lo)
}

// next returns the point after p; ok is false at the end of its space.
func (p Point) next() (q Point, ok bool) {
	if p.Lo++; p.Lo == 0 {
		p.Hi++
		return p, p.Hi != 0
	}
	return p, true
}

// prev returns the point before p, which is not the first of its space.
func (p Point) prev() Point {
	if p.Lo == 0 {
		p.Hi--
	}
	p.Lo--
	return p
}

// Range is all points of one space from First to Last.
type Range struct{ First, Last Point }

// number is the range of one small number.
func numbers(first, last int) Range {
	return Range{Point{Lo: uint64(first)}, Point{Lo: uint64(last)}}
}

// whole returns a whole space.
func whole(space uint8) Range {
	return Range{Point{Space: space}, Point{space, math.MaxUint64, math.MaxUint64}}
}

// Set is a set of points: ranges in order, of which no two overlap or touch.
// Sets are values; none is modified.
type Set []Range

// setOf returns the union of ranges.
func setOf(ranges ...Range) Set {
	slices.SortFunc(ranges, func(a, b Range) int { return a.First.compare(b.First) })
	var s Set
	for _, r := range ranges {
		s = s.append(r)
	}
	return s
}

// append adds a range that does not begin before the last one.
func (s Set) append(r Range) Set {
	if len(s) == 0 {
		return Set{r}
	}
	last := &s[len(s)-1]
	after, ok := last.Last.next()
	if r.First.Space != last.Last.Space || ok && r.First.compare(after) > 0 {
		return append(s, r)
	}
	if r.Last.compare(last.Last) > 0 {
		last.Last = r.Last
	}
	return s
}

// Empty reports whether the set has no point.
func (s Set) Empty() bool { return len(s) == 0 }

// Equal reports whether both have the same points.
func (s Set) Equal(t Set) bool { return slices.Equal(s, t) }

// Contains reports whether p is in the set.
func (s Set) Contains(p Point) bool {
	i, found := slices.BinarySearchFunc(s, p, func(r Range, p Point) int { return r.First.compare(p) })
	return found || i > 0 && p.compare(s[i-1].Last) <= 0
}

// Union returns the points of either.
func (s Set) Union(t Set) Set {
	switch {
	case len(s) == 0:
		return t
	case len(t) == 0:
		return s
	}
	u := make(Set, 0, len(s)+len(t))
	for len(s) > 0 || len(t) > 0 {
		if len(t) == 0 || len(s) > 0 && s[0].First.compare(t[0].First) <= 0 {
			u, s = u.append(s[0]), s[1:]
		} else {
			u, t = u.append(t[0]), t[1:]
		}
	}
	return u
}

// Intersect returns the points of both.
func (s Set) Intersect(t Set) Set {
	switch {
	case t.Covers(s): // nothing has to be made
		return s
	case s.Covers(t):
		return t
	}
	var u Set
	for len(s) > 0 && len(t) > 0 {
		first, last := s[0].First, s[0].Last
		if t[0].First.compare(first) > 0 {
			first = t[0].First
		}
		if t[0].Last.compare(last) < 0 {
			last = t[0].Last
		}
		if first.compare(last) <= 0 {
			u = append(u, Range{first, last})
		}
		if s[0].Last.compare(t[0].Last) <= 0 {
			s = s[1:]
		} else {
			t = t[1:]
		}
	}
	return u
}

// Overlaps reports whether there is a point of both.
func (s Set) Overlaps(t Set) bool {
	for len(s) > 0 && len(t) > 0 {
		switch {
		case s[0].Last.compare(t[0].First) < 0:
			s = s[1:]
		case t[0].Last.compare(s[0].First) < 0:
			t = t[1:]
		default:
			return true
		}
	}
	return false
}

// Minus returns the points of s that t does not have.
func (s Set) Minus(t Set) Set {
	if !s.Overlaps(t) {
		return s
	}
	var u Set
	for _, r := range s {
		for len(t) > 0 && t[0].Last.compare(r.First) < 0 {
			t = t[1:]
		}
		gone := false
		for _, cut := range t {
			if cut.First.compare(r.Last) > 0 {
				break
			}
			if cut.First.compare(r.First) > 0 {
				u = append(u, Range{r.First, cut.First.prev()})
			}
			after, ok := cut.Last.next()
			if gone = !ok || after.compare(r.Last) > 0; gone {
				break
			}
			r.First = after
		}
		if !gone {
			u = append(u, r)
		}
	}
	return u
}

// Covers reports whether s has all points of t.
func (s Set) Covers(t Set) bool {
	for _, r := range t { // which is in one range of s, or not in s
		for len(s) > 0 && s[0].Last.compare(r.First) < 0 {
			s = s[1:]
		}
		if len(s) == 0 || r.First.compare(s[0].First) < 0 || s[0].Last.compare(r.Last) < 0 {
			return false
		}
	}
	return true
}
