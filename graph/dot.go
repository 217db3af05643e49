package graph

import (
	"fmt"
	"strconv"
	"strings"
)

// DOT returns the graph in the language of Graphviz (dot(1)): one cluster for
// each device namespace, dashed edges for what only one end allows.
func (g *Graph) DOT() string {
	var b strings.Builder
	b.WriteString("digraph sockns {\n\trankdir=LR\n\tcompound=true\n\tnode [shape=box, style=rounded, fontname=\"sans-serif\"]\n\tedge [fontname=\"sans-serif\", fontsize=10]\n")
	for i, d := range g.devices() {
		fmt.Fprintf(&b, "\tsubgraph cluster_%d {\n\t\tlabel=%s\n", i, strconv.Quote("device namespace "+d))
		for j := range g.Nodes {
			if n := &g.Nodes[j]; n.Device == d {
				fmt.Fprintf(&b, "\t\t%s\n", n.dot())
			}
		}
		b.WriteString("\t}\n")
	}
	for i := range g.Nodes {
		if n := &g.Nodes[i]; n.Device == "" {
			fmt.Fprintf(&b, "\t%s\n", n.dot())
		}
	}
	places := g.places()
	for i := range g.Edges {
		e := &g.Edges[i]
		label, why := e.labels(places)
		style := ""
		if len(e.Flows) == 0 {
			style = ", style=dashed, color=firebrick"
		} else if !e.Named() {
			style = ", color=gray"
		}
		fmt.Fprintf(&b, "\t%s -> %s [label=%s, tooltip=%s%s]\n", strconv.Quote(e.From), strconv.Quote(e.To),
			strconv.Quote(strings.Join(label, "\n")), strconv.Quote(strings.Join(why, "\n")), style)
	}
	b.WriteString("}\n")
	return b.String()
}

func (n *Node) dot() string {
	attributes := "label=" + strconv.Quote(n.Name())
	switch {
	case n.Kind.Outside():
		attributes += ", shape=oval"
	case n.Kind == Unmanaged:
		attributes += ", style=dotted"
	case n.Audit:
		attributes = "label=" + strconv.Quote(n.Name()+"\n(audit)") + ", style=dashed"
	}
	return strconv.Quote(n.ID) + " [" + attributes + "]"
}

// devices returns the device namespaces of the nodes, in their order.
func (g *Graph) devices() []string {
	var list []string
	seen := make(map[string]bool)
	for i := range g.Nodes {
		if d := g.Nodes[i].Device; d != "" && !seen[d] {
			seen[d] = true
			list = append(list, d)
		}
	}
	return list
}
