package graph

import (
	"fmt"
	"strings"
)

// Mermaid returns the graph as a Mermaid flowchart, which forges and wikis
// draw where it stands in Markdown.
func (g *Graph) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := make(map[string]string, len(g.Nodes)) // Mermaid has few letters for names
	for i := range g.Nodes {
		ids[g.Nodes[i].ID] = fmt.Sprintf("n%d", i)
	}
	for i, d := range g.devices() {
		fmt.Fprintf(&b, "  subgraph d%d[%s]\n", i, mermaidText("device namespace "+d))
		for j := range g.Nodes {
			if n := &g.Nodes[j]; n.Device == d {
				fmt.Fprintf(&b, "    %s%s\n", ids[n.ID], n.mermaid())
			}
		}
		b.WriteString("  end\n")
	}
	for i := range g.Nodes {
		if n := &g.Nodes[i]; n.Device == "" {
			fmt.Fprintf(&b, "  %s%s\n", ids[n.ID], n.mermaid())
		}
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		label, _ := e.labels(nil)
		arrow := "-->"
		if len(e.Flows) == 0 {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  %s %s|%s| %s\n", ids[e.From], arrow, mermaidText(strings.Join(label, "<br>")), ids[e.To])
	}
	return b.String()
}

func (n *Node) mermaid() string {
	switch {
	case n.Kind.Outside():
		return "([" + mermaidText(n.Name()) + "])"
	case n.Audit:
		return "[" + mermaidText(n.Name()+" (audit)") + "]"
	}
	return "[" + mermaidText(n.Name()) + "]"
}

// mermaidText quotes a label; the language has names of entities for what
// would end it.
func mermaidText(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, "#quot;") + `"`
}
