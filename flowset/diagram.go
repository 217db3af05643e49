package flowset

import (
	"encoding/binary"
	"slices"
)

// Diagram is a function from the points of a domain to labels: a decision
// diagram over sets (Gouda and Liu, "Structured firewall design", 2007) that is
// reduced and shared, as a BDD is (Bryant 1986). Within one [space], equal
// functions are the same pointer.
type Diagram struct {
	id    uint32
	dim   int // that its edges ask for; dims for a leaf
	label int // of a leaf
	edges []edge
}

// edge leads to what the function is where the coordinate is in the set. The
// sets of a diagram's edges are disjoint and make up the domain.
type edge struct {
	set Set
	to  *Diagram
}

// space makes diagrams over one domain, which is a box. It is not safe for
// concurrent use.
type space struct {
	domain Box
	nodes  map[string]*Diagram
	leaves map[int]*Diagram
	key    []byte
	edges  int // of all nodes
	limit  int // of edges; 0: none
}

// full reports whether the limit was reached: what was made since means nothing.
func (s *space) full() bool { return s.limit > 0 && s.edges > s.limit }

func newSpace(domain Box) *space {
	return &space{domain: domain, nodes: make(map[string]*Diagram), leaves: make(map[int]*Diagram)}
}

// constant returns the function that is label everywhere.
func (s *space) constant(label int) *Diagram {
	d := s.leaves[label]
	if d == nil {
		d = &Diagram{id: uint32(len(s.leaves) + len(s.nodes)), dim: dims, label: label}
		s.leaves[label] = d
	}
	return d
}

// node returns the diagram with these edges. Those that lead to the same
// become one; if one is left it stands for its end.
func (s *space) node(dim int, edges []edge) *Diagram {
	merged := edges[:0]
	for _, e := range edges {
		i := slices.IndexFunc(merged, func(m edge) bool { return m.to == e.to })
		if i < 0 {
			merged = append(merged, e)
		} else {
			merged[i].set = merged[i].set.Union(e.set)
		}
	}
	if len(merged) == 1 {
		return merged[0].to
	}
	slices.SortFunc(merged, func(a, b edge) int { return a.set[0].First.compare(b.set[0].First) })
	key := append(s.key[:0], byte(dim))
	for _, e := range merged {
		key = binary.AppendUvarint(key, uint64(e.to.id))
		key = binary.AppendUvarint(key, uint64(len(e.set)))
		for _, r := range e.set {
			for _, p := range [...]Point{r.First, r.Last} {
				key = append(key, p.Space)
				key = binary.AppendUvarint(key, p.Hi)
				key = binary.AppendUvarint(key, p.Lo)
			}
		}
	}
	s.key = key
	d := s.nodes[string(key)]
	if d == nil {
		d = &Diagram{id: uint32(len(s.leaves) + len(s.nodes)), dim: dim, edges: slices.Clone(merged)}
		s.nodes[string(key)] = d
		s.edges += len(d.edges)
	}
	return d
}

// edgesAt returns the edges of d for a dimension that it may not ask for.
func (s *space) edgesAt(d *Diagram, dim int) []edge {
	if d.dim == dim {
		return d.edges
	}
	return []edge{{s.domain[dim], d}}
}

// paint returns the function that is label in a box and d elsewhere.
func (s *space) paint(d *Diagram, box *Box, label int) *Diagram {
	return s.combine(d, box, s.constant(label))
}

// combine returns the function that is in in a box and out elsewhere.
func (s *space) combine(out *Diagram, box *Box, in *Diagram) *Diagram {
	type place struct {
		dim     int
		in, out *Diagram
	}
	memo := make(map[place]*Diagram)
	whole := s.whole(box)
	var from func(dim int, out, in *Diagram) *Diagram
	from = func(dim int, out, in *Diagram) *Diagram {
		for dim < dims && whole[dim] && out.dim > dim && in.dim > dim {
			dim++ // nobody asks
		}
		if dim == dims || in == out || s.full() {
			return in
		}
		at := place{dim, in, out}
		if done := memo[at]; done != nil {
			return done
		}
		outs, ins := s.edgesAt(out, dim), s.edgesAt(in, dim)
		edges := make([]edge, 0, len(outs)+len(ins))
		for _, o := range outs {
			if rest := o.set.Minus(box[dim]); !rest.Empty() {
				edges = append(edges, edge{rest, o.to})
			}
			inside := o.set.Intersect(box[dim])
			if inside.Empty() {
				continue
			}
			for _, i := range ins {
				if both := inside.Intersect(i.set); !both.Empty() {
					edges = append(edges, edge{both, from(dim+1, o.to, i.to)})
				}
			}
		}
		d := s.node(dim, edges)
		memo[at] = d
		return d
	}
	return from(0, out, in)
}

// whole says in which dimensions a box has the whole domain.
func (s *space) whole(box *Box) (whole [dims]bool) {
	for d := range box {
		whole[d] = box[d].Covers(s.domain[d])
	}
	return whole
}

// apply returns the function whose label follows from those of two.
func (s *space) apply(a, b *Diagram, label func(a, b int) int) *Diagram {
	type pair struct{ a, b *Diagram }
	memo := make(map[pair]*Diagram)
	var from func(a, b *Diagram) *Diagram
	from = func(a, b *Diagram) *Diagram {
		if a.dim == dims && b.dim == dims {
			return s.constant(label(a.label, b.label))
		}
		if s.full() {
			return a
		}
		if d := memo[pair{a, b}]; d != nil {
			return d
		}
		dim := min(a.dim, b.dim)
		xs, ys := s.edgesAt(a, dim), s.edgesAt(b, dim)
		edges := make([]edge, 0, len(xs)+len(ys))
		for _, x := range xs {
			for _, y := range ys {
				if both := x.set.Intersect(y.set); !both.Empty() {
					edges = append(edges, edge{both, from(x.to, y.to)})
				}
			}
		}
		d := s.node(dim, edges)
		memo[pair{a, b}] = d
		return d
	}
	return from(a, b)
}

// walk visits the pairs of labels that two functions have at the points of a
// box, each pair once or more.
func (s *space) walk(a, b *Diagram, box *Box, visit func(a, b int)) {
	type pair struct{ a, b *Diagram }
	seen := make(map[pair]bool)
	whole := s.whole(box)
	var from func(a, b *Diagram)
	from = func(a, b *Diagram) {
		if a.dim == dims && b.dim == dims {
			visit(a.label, b.label)
			return
		}
		if seen[pair{a, b}] {
			return
		}
		seen[pair{a, b}] = true
		switch dim := min(a.dim, b.dim); {
		case b.dim > dim:
			for _, x := range s.within(a, box, whole) {
				from(x.to, b)
			}
		case a.dim > dim:
			for _, y := range s.within(b, box, whole) {
				from(a, y.to)
			}
		default:
			ys := s.within(b, box, whole)
			for _, x := range s.within(a, box, whole) {
				for _, y := range ys {
					if x.set.Overlaps(y.set) {
						from(x.to, y.to)
					}
				}
			}
		}
	}
	from(a, b)
}

// within returns what of the edges of d is in a box.
func (s *space) within(d *Diagram, box *Box, whole [dims]bool) []edge {
	dim := d.dim
	if whole[dim] {
		return d.edges
	}
	var list []edge
	for _, e := range d.edges {
		if in := e.set.Intersect(box[dim]); !in.Empty() {
			list = append(list, edge{in, e.to})
		}
	}
	return list
}
