package graph

import "slices"

// Selection says what of a graph is wanted.
type Selection struct {
	// Unnamed keeps flows that are allowed only because both ends allow anybody,
	// or because no rule decides.
	Unnamed bool
	// OneSided keeps what one end allows by name and the other refuses.
	OneSided bool
	// Around, if it is not empty, keeps these nodes and their neighbours.
	Around []string
}

// Select returns the part of the graph that is wanted. Nodes outside that lose
// all their edges go, and so does what is unmanaged.
func (g *Graph) Select(s Selection) *Graph {
	part := &Graph{Nodes: []Node{}, Edges: []Edge{}, Rules: g.Rules, Live: g.Live}
	used := make(map[string]bool)
	for _, id := range s.Around {
		used[id] = true
	}
	for _, e := range g.Edges {
		if !s.OneSided {
			e.OneSided = nil
		}
		if !s.Unnamed {
			e.Flows = slices.DeleteFunc(slices.Clone(e.Flows), func(f Flow) bool { return !f.Named })
		}
		if len(e.Flows)+len(e.OneSided)+len(e.Refused) == 0 {
			continue
		}
		if len(s.Around) > 0 && !slices.Contains(s.Around, e.From) && !slices.Contains(s.Around, e.To) {
			continue
		}
		used[e.From], used[e.To] = true, true
		part.Edges = append(part.Edges, e)
	}
	for _, n := range g.Nodes {
		always := len(s.Around) == 0 && (n.Kind == Namespace || n.Kind == Template)
		if used[n.ID] || always {
			part.Nodes = append(part.Nodes, n)
		}
	}
	return part
}

// Has reports whether the graph has a node of that ID.
func (g *Graph) Has(id string) bool {
	return slices.ContainsFunc(g.Nodes, func(n Node) bool { return n.ID == id })
}
