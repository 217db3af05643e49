package flowset

import (
	"encoding/binary"
	"slices"
)

// The dimensions of a point, in the order in which a diagram asks for them.
const (
	dimProtocol = iota // index in model.Protocols
	dimLocal           // the local address
	dimPort            // bind and accept: the local port, connect: the remote one
	dimPeer            // who the peer is: a class of a universe
	dimAddress         // the peer's address
	dims
)

// Box is the points whose coordinates are each in a set.
type Box [dims]Set

func (b *Box) empty() bool { return slices.ContainsFunc(b[:], Set.Empty) }

// contains reports whether a point, given by its coordinates, is in the box.
func (b *Box) contains(at [dims]Point) bool {
	for d, s := range b {
		if !s.Contains(at[d]) {
			return false
		}
	}
	return true
}

// intersect returns the points of both boxes; ok is false if there is none.
func (b *Box) intersect(c *Box) (both Box, ok bool) {
	for d := range b {
		if both[d] = b[d].Intersect(c[d]); both[d].Empty() {
			return both, false
		}
	}
	return both, true
}

// Labeled is a box of a diagram and the label that the function has there.
type Labeled struct {
	Box
	Label int
}

// boxes returns disjoint boxes that make up the points whose label is wanted.
// No two of them could be one.
func (s *space) boxes(d *Diagram, wanted func(label int) bool) []Labeled {
	return merge(s.pieces(d, &s.domain, wanted))
}

// pieces returns disjoint boxes that make up the points of a box whose label is
// wanted.
func (s *space) pieces(d *Diagram, in *Box, wanted func(label int) bool) []Labeled {
	var list []Labeled
	box, whole := *in, s.whole(in)
	var visit func(d *Diagram)
	visit = func(d *Diagram) {
		if d.dim == dims {
			if wanted(d.label) {
				list = append(list, Labeled{box, d.label})
			}
			return
		}
		for _, e := range s.within(d, in, whole) {
			box[d.dim] = e.set
			visit(e.to)
			box[d.dim] = in[d.dim]
		}
	}
	visit(d)
	return list
}

// merge makes one of any two boxes with the same label that differ in one
// dimension only, until there are none.
func merge(list []Labeled) []Labeled {
	for again := true; again; {
		again = false
		for dim := dims - 1; dim >= 0; dim-- {
			place := make(map[string]int, len(list))
			kept := list[:0]
			for _, b := range list {
				key := b.keyWithout(dim)
				if i, ok := place[key]; ok {
					kept[i].Box[dim] = kept[i].Box[dim].Union(b.Box[dim])
					again = true
					continue
				}
				place[key] = len(kept)
				kept = append(kept, b)
			}
			list = kept
		}
	}
	return list
}

// keyWithout is the same for two boxes that are alike but for one dimension.
func (b *Labeled) keyWithout(dim int) string {
	key := binary.AppendVarint(nil, int64(b.Label))
	for d, s := range b.Box {
		if d == dim {
			continue
		}
		key = binary.AppendUvarint(key, uint64(len(s)))
		for _, r := range s {
			for _, p := range [...]Point{r.First, r.Last} {
				key = append(key, p.Space)
				key = binary.AppendUvarint(key, p.Hi)
				key = binary.AppendUvarint(key, p.Lo)
			}
		}
	}
	return string(key)
}
