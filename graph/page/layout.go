package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/sockns/sockns/graph"
)

// Layout is where everything stands, in the page's units (pixels at zoom 1).
type Layout struct {
	Style string    `json:"style"` // "layers" or "circle"
	Size  [4]int    `json:"size"`  // x, y, width, height of the whole
	Spots []Spot    `json:"spots"`
	Boxes []Box     `json:"boxes"`
	Paths []EdgeWay `json:"paths"` // of the edges that are named
}

// Spot is where a node is drawn. In layers, what is outside or unmanaged is
// drawn twice if traffic goes both ways: at the left as a source, at the right
// as a target.
type Spot struct {
	Node  int     `json:"node"` // index in the graph
	X     float64 `json:"x"`    // middle; in a circle where the name begins
	Y     float64 `json:"y"`
	Width float64 `json:"width,omitempty"`
	Angle float64 `json:"angle,omitempty"` // of the name in a circle, degrees clockwise from the right
	Role  string  `json:"role,omitempty"`  // "source" or "target", if it is one of two
	Label string  `json:"label,omitempty"` // in a circle: the name without what its group is called
}

// Box is a cluster: a device namespace, or within it namespaces with a prefix
// of their names in common.
type Box struct {
	Label  string  `json:"label"`
	X      float64 `json:"x"`
	Y      float64 `json:"y"`
	Width  float64 `json:"width,omitempty"` // none in a circle, where X and Y are the label's place
	Height float64 `json:"height,omitempty"`
	Angle  float64 `json:"angle,omitempty"`
	Path   string  `json:"path,omitempty"` // the arc in a circle
	Level  int     `json:"level"`          // 0: device namespace, 1: prefix
}

// EdgeWay is how an edge is drawn: an SVG path, and where its label fits.
type EdgeWay struct {
	Edge   int     `json:"edge"` // index in the graph
	Path   string  `json:"path"`
	LabelX float64 `json:"labelX"`
	LabelY float64 `json:"labelY"`
}

// The most that layers are readable with.
const (
	maxLayerNodes = 45
	maxLayerEdges = 110
)

func layOut(g *graph.Graph) Layout {
	named := 0
	for i := range g.Edges {
		if g.Edges[i].Named() {
			named++
		}
	}
	if len(g.Nodes) <= maxLayerNodes && named <= maxLayerEdges {
		return layers(g)
	}
	return circle(g)
}

type point struct{ x, y float64 }

// path writes points joined by curves that leave and arrive horizontally.
func horizontalCurves(points []point) string {
	var b strings.Builder
	fmt.Fprintf(&b, "M%s", points[0])
	for i := 1; i < len(points); i++ {
		p, q := points[i-1], points[i]
		bend := (q.x - p.x) / 2
		fmt.Fprintf(&b, "C%s %s %s", point{p.x + bend, p.y}, point{q.x - bend, q.y}, q)
	}
	return b.String()
}

// basisSpline writes a uniform cubic B-spline through the first and the last
// point, bent towards those between (Holten, Hierarchical Edge Bundles, 2006).
func basisSpline(points []point) string {
	n := len(points)
	mix := func(a, b, c point, x, y, z float64) point {
		s := x + y + z
		return point{(x*a.x + y*b.x + z*c.x) / s, (x*a.y + y*b.y + z*c.y) / s}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "M%sL%s", points[0], mix(points[0], points[1], point{}, 5, 1, 0))
	for i := 1; i < n; i++ {
		p, q := points[i-1], points[i]
		next := q
		if i+1 < n {
			next = points[i+1]
		}
		fmt.Fprintf(&b, "C%s %s %s", mix(p, q, q, 2, 1, 0), mix(p, q, q, 1, 2, 0), mix(p, q, next, 1, 4, 1))
	}
	fmt.Fprintf(&b, "L%s", points[n-1])
	return b.String()
}

func (p point) String() string { return fmt.Sprintf("%.0f,%.0f", p.x, p.y) }

func round(f float64) float64 { return math.Round(f*10) / 10 }
