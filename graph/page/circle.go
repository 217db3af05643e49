package page

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sockns/sockns/graph"
)

// The measures of a circle.
const (
	nodeArc    = 9.5  // along the circle, for each name
	gapPrefix  = 0.9  // between groups of one prefix, in names
	gapDevice  = 5.0  // between device namespaces
	nameRoom   = 64   // outside the circle, for names
	labelRoom  = 190  // outside the circle, for names and groups
	deviceRoom = 150  // at both sides, for the names of device namespaces
	tension    = 0.86 // of bundles: 0 straight, 1 through the middle of their groups
	minRadius  = 200
)

// cluster is a run of nodes on the circle.
type cluster struct {
	device, prefix string
	nodes          []int
	first, last    float64 // angles of its ends
}

func (c *cluster) middle() float64 { return (c.first + c.last) / 2 }

// circle puts all nodes on a circle, those of a device namespace together and
// in it those with the same prefix, and bundles the edges.
func circle(g *graph.Graph) Layout {
	clusters := clustersOf(g)
	slots := 0.0
	for i := range clusters {
		slots += float64(len(clusters[i].nodes)) + gapAfter(clusters, i)
	}
	radius := max(minRadius, slots*nodeArc/(2*math.Pi))
	l := Layout{Style: "circle"}
	angles := make([]float64, len(g.Nodes))
	of := make([]*cluster, len(g.Nodes))
	slot := 0.0
	for i := range clusters {
		c := &clusters[i]
		c.first = turn(slot, slots)
		for _, n := range c.nodes {
			angles[n], of[n] = turn(slot+0.5, slots), c
			p := polar(radius+8, angles[n])
			l.Spots = append(l.Spots, Spot{
				Node: n, X: round(p.x), Y: round(p.y), Angle: round(angles[n] * 180 / math.Pi),
				Label: strings.TrimPrefix(g.Nodes[n].Name(), c.prefix+"-"),
			})
			slot++
		}
		c.last = turn(slot, slots)
		slot += gapAfter(clusters, i)
	}
	l.Boxes = arcs(clusters, radius)
	devices := middles(clusters)
	for i := range g.Edges {
		e := &g.Edges[i]
		from, to := indexOf(g, e.From), indexOf(g, e.To)
		if !e.Named() || from == to {
			continue
		}
		way := []point{polar(radius, angles[from])}
		a, b := of[from], of[to]
		if a != b {
			way = append(way, polar(radius*0.72, a.middle()))
			if a.device != b.device {
				way = append(way, polar(radius*0.4, devices[a.device]), point{}, polar(radius*0.4, devices[b.device]))
			} else {
				way = append(way, polar(radius*0.4, between(a.middle(), b.middle())))
			}
			way = append(way, polar(radius*0.72, b.middle()))
		} else {
			way = append(way, polar(radius*0.82, between(angles[from], angles[to])))
		}
		way = append(way, polar(radius, angles[to]))
		l.Paths = append(l.Paths, EdgeWay{Edge: i, Path: basisSpline(straighten(way))})
	}
	half := int(radius) + labelRoom
	l.Size = [4]int{-half - deviceRoom, -half, 2 * (half + deviceRoom), 2 * half}
	return l
}

// straighten draws the points between towards the straight line.
func straighten(way []point) []point {
	n := len(way) - 1
	out := slices.Clone(way)
	for i := range out {
		t := float64(i) / float64(n)
		out[i].x = tension*way[i].x + (1-tension)*(way[0].x+t*(way[n].x-way[0].x))
		out[i].y = tension*way[i].y + (1-tension)*(way[0].y+t*(way[n].y-way[0].y))
	}
	return out
}

func turn(slot, slots float64) float64 { return slot/slots*2*math.Pi - math.Pi/2 }

func polar(r, angle float64) point { return point{r * math.Cos(angle), r * math.Sin(angle)} }

// between returns the angle half way, the short way round.
func between(a, b float64) float64 {
	return math.Atan2(math.Sin(a)+math.Sin(b), math.Cos(a)+math.Cos(b))
}

func gapAfter(list []cluster, i int) float64 {
	if list[i].device != list[(i+1)%len(list)].device {
		return gapDevice
	}
	return gapPrefix
}

// clustersOf groups the nodes: device namespaces in their order, in them the
// prefixes, and what is outside at the end.
func clustersOf(g *graph.Graph) []cluster {
	count := make(map[[2]string]int)
	for i := range g.Nodes {
		count[[2]string{g.Nodes[i].Device, prefix(&g.Nodes[i])}]++
	}
	var list []cluster
	index := make(map[[2]string]int)
	order := make(map[string]int)
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if _, ok := order[n.Device]; !ok {
			order[n.Device] = len(order)
		}
		k := [2]string{n.Device, prefix(n)}
		if count[k] < 2 {
			k[1] = "" // no group of its own
		}
		j, ok := index[k]
		if !ok {
			j = len(list)
			index[k] = j
			list = append(list, cluster{device: k[0], prefix: k[1]})
		}
		list[j].nodes = append(list[j].nodes, i)
	}
	slices.SortStableFunc(list, func(a, b cluster) int { return order[a.device] - order[b.device] })
	return list
}

// prefix is the part of a name that a fleet's naming usually has for the
// application: "shop" of shop-web.
func prefix(n *graph.Node) string {
	if n.Kind != graph.Namespace && n.Kind != graph.Template {
		return ""
	}
	p, _, _ := strings.Cut(n.ID, "-")
	return p
}

// middles returns where each device namespace's part of the circle is.
func middles(clusters []cluster) map[string]float64 {
	first, last := make(map[string]float64), make(map[string]float64)
	for _, c := range clusters {
		if _, ok := first[c.device]; !ok {
			first[c.device] = c.first
		}
		last[c.device] = c.last
	}
	out := make(map[string]float64)
	for d := range first {
		out[d] = (first[d] + last[d]) / 2
	}
	return out
}

// arcs returns the clusters' arcs and labels: prefixes just inside the circle,
// device namespaces outside of the names.
func arcs(clusters []cluster, radius float64) []Box {
	var boxes []Box
	add := func(label string, first, last, r float64, level int) {
		from, to := polar(r, first), polar(r, last)
		large := 0
		if last-first > math.Pi {
			large = 1
		}
		middle := (first + last) / 2
		at := polar(r+10, middle)
		if level == 1 {
			at = polar(r+nameRoom, middle)
		}
		boxes = append(boxes, Box{
			Label: label, X: round(at.x), Y: round(at.y), Angle: round(middle * 180 / math.Pi), Level: level,
			Path: fmt.Sprintf("M%sA%.0f,%.0f 0 %d 1 %s", from, r, r, large, to),
		})
	}
	for i := 0; i < len(clusters); {
		j := i
		for j < len(clusters) && clusters[j].device == clusters[i].device {
			if c := &clusters[j]; c.prefix != "" {
				add(c.prefix, c.first, c.last, radius+3, 1)
			}
			j++
		}
		label := "device namespace " + clusters[i].device
		if clusters[i].device == "" {
			label = "outside"
		}
		add(label, clusters[i].first, clusters[j-1].last, radius+labelRoom-22, 0)
		i = j
	}
	return boxes
}

func indexOf(g *graph.Graph, id string) int {
	return slices.IndexFunc(g.Nodes, func(n graph.Node) bool { return n.ID == id })
}
