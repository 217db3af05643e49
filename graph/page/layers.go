package page

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/sockns/sockns/graph"
)

// The measures of layers.
const (
	rowHeight  = 62  // of a node
	wayHeight  = 30  // of an edge that passes a layer
	letter     = 7.6 // width of a letter of a name
	minWidth   = 76
	columnGap  = 104 // between layers, room for labels
	bandGap    = 46  // between device namespaces
	bandMargin = 26
)

// vertex is a node's spot or, with node < 0, a place where an edge passes a layer.
type vertex struct {
	node   int
	role   string
	device string // the band; empty: none
	layer  int
	y      float64
	before []int // neighbours in the layer before
	after  []int
}

type layered struct {
	g        *graph.Graph
	vertices []vertex
	layers   [][]int // vertices of each layer, top first
	chains   map[int][]int
	flipped  map[int]bool // edges that were turned round to break circles
}

// layers draws from left to right: who connects stands left of who accepts
// (Sugiyama's method: layers, order by the middle of neighbours, heights).
func layers(g *graph.Graph) Layout {
	l := &layered{g: g, chains: make(map[int][]int), flipped: make(map[int]bool)}
	l.assign()
	l.order()
	l.heights()
	return l.draw()
}

// spotKey finds the vertex of a node, at one side if it has two.
type spotKey struct {
	node int
	role string
}

func (l *layered) assign() {
	g := l.g
	depth := l.depths()
	deepest := 0
	for _, d := range depth {
		deepest = max(deepest, d)
	}
	spots := make(map[spotKey]int)
	spot := func(node int, role string) int {
		n := &g.Nodes[node]
		if !twoSided(n) {
			role = ""
		}
		k := spotKey{node, role}
		if v, ok := spots[k]; ok {
			return v
		}
		v := vertex{node: node, role: role, device: n.Device, layer: depth[node] + 2}
		switch {
		case role == "source" && n.Kind.Outside():
			v.layer = 0
		case role == "source":
			v.layer = 1
		case role == "target" && n.Kind.Outside():
			v.layer = deepest + 4
		case role == "target":
			v.layer = deepest + 3
		}
		spots[k] = len(l.vertices)
		l.vertices = append(l.vertices, v)
		return spots[k]
	}
	for i := range g.Nodes {
		if !twoSided(&g.Nodes[i]) {
			spot(i, "")
		}
	}
	type arc struct{ edge, from, to int }
	var arcs []arc
	for i := range g.Edges {
		e := &g.Edges[i]
		from, to := indexOf(g, e.From), indexOf(g, e.To)
		if !e.Named() || from == to {
			continue
		}
		a := arc{i, spot(from, "source"), spot(to, "target")}
		if l.vertices[a.from].layer > l.vertices[a.to].layer {
			a.from, a.to = a.to, a.from
			l.flipped[i] = true
		}
		arcs = append(arcs, a)
	}
	for i := range g.Edges { // what no other edge gave a place
		for role, id := range map[string]string{"source": g.Edges[i].From, "target": g.Edges[i].To} {
			n := indexOf(g, id)
			if _, source := spots[spotKey{n, "source"}]; twoSided(&g.Nodes[n]) && !source {
				if _, target := spots[spotKey{n, "target"}]; !target {
					spot(n, role)
				}
			}
		}
	}
	l.dropEmptyLayers()
	for _, a := range arcs {
		chain := []int{a.from}
		for layer := l.vertices[a.from].layer + 1; layer < l.vertices[a.to].layer; layer++ {
			chain = append(chain, len(l.vertices))
			l.vertices = append(l.vertices, vertex{node: -1, device: cmp.Or(l.vertices[a.to].device, l.vertices[a.from].device), layer: layer})
		}
		chain = append(chain, a.to)
		for k := 1; k < len(chain); k++ {
			l.vertices[chain[k-1]].after = append(l.vertices[chain[k-1]].after, chain[k])
			l.vertices[chain[k]].before = append(l.vertices[chain[k]].before, chain[k-1])
		}
		l.chains[a.edge] = chain
	}
	last := 0
	for _, v := range l.vertices {
		last = max(last, v.layer)
	}
	l.layers = make([][]int, last+1)
	for i, v := range l.vertices {
		l.layers[v.layer] = append(l.layers[v.layer], i)
	}
}

func twoSided(n *graph.Node) bool { return n.Kind.Outside() || n.Kind == graph.Unmanaged }

// depths returns for each namespace the longest way to it from one that
// nobody connects to, edges back into a way left aside.
func (l *layered) depths() []int {
	g := l.g
	out := make([][]int, len(g.Nodes))
	for i := range g.Edges {
		from, to := indexOf(g, g.Edges[i].From), indexOf(g, g.Edges[i].To)
		if g.Edges[i].Named() && from != to && !twoSided(&g.Nodes[from]) && !twoSided(&g.Nodes[to]) {
			out[from] = append(out[from], to)
		}
	}
	state := make([]int, len(g.Nodes)) // 1: on the way, 2: done
	var reversed []int                 // order of leaving
	forward := make([][]int, len(g.Nodes))
	var visit func(int)
	visit = func(n int) {
		state[n] = 1
		for _, m := range out[n] {
			if state[m] == 1 {
				continue
			}
			forward[n] = append(forward[n], m)
			if state[m] == 0 {
				visit(m)
			}
		}
		state[n] = 2
		reversed = append(reversed, n)
	}
	for n := range g.Nodes {
		if state[n] == 0 {
			visit(n)
		}
	}
	depth := make([]int, len(g.Nodes))
	for i := len(reversed) - 1; i >= 0; i-- {
		for _, m := range forward[reversed[i]] {
			depth[m] = max(depth[m], depth[reversed[i]]+1)
		}
	}
	return depth
}

func (l *layered) dropEmptyLayers() {
	used := make(map[int]bool)
	for _, v := range l.vertices {
		used[v.layer] = true
	}
	for i := range l.vertices {
		at := 0
		for layer := range l.vertices[i].layer {
			if used[layer] {
				at++
			}
		}
		l.vertices[i].layer = at
	}
}

// bandOf orders the device namespaces; what is outside has no band.
func (l *layered) bandOf(device string) int {
	i := slices.IndexFunc(l.g.Nodes, func(n graph.Node) bool { return n.Device == device })
	if device == "" {
		return -1
	}
	return i
}

// order sorts each layer by the middle of the neighbours, to and fro.
func (l *layered) order() {
	position := make([]float64, len(l.vertices))
	place := func(layer []int) {
		for i, v := range layer {
			position[v] = float64(i) - float64(len(layer))/2
		}
	}
	for _, layer := range l.layers {
		slices.SortStableFunc(layer, func(a, b int) int {
			return cmp.Compare(l.bandOf(l.vertices[a].device), l.bandOf(l.vertices[b].device))
		})
		place(layer)
	}
	sweep := func(layer []int, neighbours func(*vertex) []int) {
		middle := make(map[int]float64, len(layer))
		for _, v := range layer {
			middle[v] = position[v]
			if list := neighbours(&l.vertices[v]); len(list) > 0 {
				sum := 0.0
				for _, n := range list {
					sum += position[n]
				}
				middle[v] = sum / float64(len(list))
			}
		}
		slices.SortStableFunc(layer, func(a, b int) int {
			va, vb := &l.vertices[a], &l.vertices[b]
			if va.device != "" && vb.device != "" && va.device != vb.device {
				return cmp.Compare(l.bandOf(va.device), l.bandOf(vb.device))
			}
			return cmp.Compare(middle[a], middle[b])
		})
		place(layer)
	}
	for range 12 {
		for i := 1; i < len(l.layers); i++ {
			sweep(l.layers[i], func(v *vertex) []int { return v.before })
		}
		for i := len(l.layers) - 2; i >= 0; i-- {
			sweep(l.layers[i], func(v *vertex) []int { return v.after })
		}
	}
}

func (l *layered) height(v int) float64 {
	if l.vertices[v].node < 0 {
		return wayHeight
	}
	return rowHeight
}

// heights gives each band its room, and in it each vertex a place near its
// neighbours that keeps the order.
func (l *layered) heights() {
	var devices []string
	need := make(map[string]float64)
	for _, layer := range l.layers {
		sum := make(map[string]float64)
		for _, v := range layer {
			sum[l.vertices[v].device] += l.height(v)
		}
		for d, h := range sum {
			need[d] = max(need[d], h)
		}
	}
	for _, n := range l.g.Nodes {
		if n.Device != "" && !slices.Contains(devices, n.Device) {
			devices = append(devices, n.Device)
		}
	}
	top, bottom := make(map[string]float64), make(map[string]float64)
	y := 0.0
	for _, d := range devices {
		top[d], bottom[d] = y, y+need[d]
		y += need[d] + bandGap + 2*bandMargin
	}
	whole := max(y-bandGap-2*bandMargin, need[""])
	top[""], bottom[""] = 0, whole
	for _, layer := range l.layers {
		next := make(map[string]float64)
		for _, v := range layer {
			d := l.vertices[v].device
			if _, ok := next[d]; !ok {
				next[d] = top[d]
			}
			l.vertices[v].y = next[d] + l.height(v)/2
			next[d] += l.height(v)
		}
	}
	for i := range 24 {
		for k := range l.layers {
			if i%2 == 1 {
				k = len(l.layers) - 1 - k
			}
			l.relax(l.layers[k], top, bottom)
		}
	}
}

// relax moves the vertices of a layer towards their neighbours.
func (l *layered) relax(layer []int, top, bottom map[string]float64) {
	bands := make(map[string][]int)
	for _, v := range layer {
		d := l.vertices[v].device
		bands[d] = append(bands[d], v)
	}
	for d, list := range bands {
		want := make([]float64, len(list))
		for i, v := range list {
			want[i] = l.vertices[v].y
			near := append(slices.Clone(l.vertices[v].before), l.vertices[v].after...)
			if len(near) > 0 {
				sum := 0.0
				for _, n := range near {
					sum += l.vertices[n].y
				}
				want[i] = sum / float64(len(near))
			}
		}
		limit := top[d]
		for i, v := range list { // not above the one before, nor the band's top
			want[i] = max(want[i], limit+l.height(v)/2)
			limit = want[i] + l.height(v)/2
		}
		limit = bottom[d]
		for i := len(list) - 1; i >= 0; i-- {
			h := l.height(list[i]) / 2
			want[i] = min(want[i], limit-h)
			limit = want[i] - h
			l.vertices[list[i]].y = want[i]
		}
	}
}

func (l *layered) draw() Layout {
	g := l.g
	out := Layout{Style: "layers"}
	x := make([]float64, len(l.layers))
	widths := make([]float64, len(l.layers))
	at := 0.0
	for i, layer := range l.layers {
		widths[i] = minWidth
		for _, v := range layer {
			if n := l.vertices[v].node; n >= 0 {
				widths[i] = max(widths[i], float64(utf8.RuneCountInString(g.Nodes[n].Name()))*letter+30)
			}
		}
		x[i] = at + widths[i]/2
		at += widths[i] + columnGap
	}
	for _, v := range l.vertices {
		if v.node >= 0 {
			out.Spots = append(out.Spots, Spot{Node: v.node, X: round(x[v.layer]), Y: round(v.y), Width: round(widths[v.layer]), Role: v.role})
		}
	}
	out.Boxes = l.boxes(x, widths)
	for i := range g.Edges {
		chain, ok := l.chains[i]
		if !ok {
			continue
		}
		var points []point
		for k, v := range chain {
			p, half := &l.vertices[v], widths[l.vertices[v].layer]/2
			if k > 0 {
				points = append(points, point{x[p.layer] - half, p.y})
			}
			if k < len(chain)-1 {
				points = append(points, point{x[p.layer] + half, p.y})
			}
		}
		// The label stands where the edge passes a layer, alone; else half way.
		first, second := points[0], points[1]
		if len(points) > 2 {
			first, second = points[1], points[2]
		}
		if l.flipped[i] {
			slices.Reverse(points)
		}
		out.Paths = append(out.Paths, EdgeWay{
			Edge: i, Path: horizontalCurves(points),
			LabelX: round((first.x + second.x) / 2), LabelY: round((first.y + second.y) / 2),
		})
	}
	for i := range g.Edges {
		if e := &g.Edges[i]; e.From == e.To && e.Named() {
			out.Paths = append(out.Paths, l.loop(i, x, widths))
		}
	}
	out.Size = extent(&out)
	return out
}

// loop is the way of an edge from a template to its other instances.
func (l *layered) loop(edge int, x, widths []float64) EdgeWay {
	node := indexOf(l.g, l.g.Edges[edge].From)
	i := slices.IndexFunc(l.vertices, func(v vertex) bool { return v.node == node })
	v := l.vertices[i]
	right, top := x[v.layer]+widths[v.layer]/2, v.y-18
	return EdgeWay{
		Edge: edge, LabelX: right - 24, LabelY: top - 20,
		Path: fmt.Sprintf("M%sC%s %s %s", point{right - 44, top}, point{right - 44, top - 30}, point{right - 8, top - 30}, point{right - 8, top}),
	}
}

// boxes returns a frame for each device namespace.
func (l *layered) boxes(x, widths []float64) []Box {
	var list []Box
	index := make(map[string]int)
	type frame struct{ left, top, right, bottom float64 }
	var frames []frame
	for _, v := range l.vertices {
		if v.node < 0 || v.device == "" {
			continue
		}
		i, ok := index[v.device]
		if !ok {
			i = len(frames)
			index[v.device] = i
			frames = append(frames, frame{math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)})
			list = append(list, Box{Label: "device namespace " + v.device})
		}
		f, half := &frames[i], widths[v.layer]/2
		f.left, f.right = min(f.left, x[v.layer]-half), max(f.right, x[v.layer]+half)
		f.top, f.bottom = min(f.top, v.y-rowHeight/2), max(f.bottom, v.y+rowHeight/2)
	}
	for i, f := range frames {
		list[i].X, list[i].Y = round(f.left-bandMargin), round(f.top-bandMargin)
		list[i].Width, list[i].Height = round(f.right-f.left+2*bandMargin), round(f.bottom-f.top+2*bandMargin-6)
	}
	return list
}

func extent(l *Layout) [4]int {
	left, top, right, bottom := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, s := range l.Spots {
		left, right = min(left, s.X-s.Width/2), max(right, s.X+s.Width/2)
		top, bottom = min(top, s.Y-rowHeight/2), max(bottom, s.Y+rowHeight/2)
	}
	for _, b := range l.Boxes {
		left, right = min(left, b.X), max(right, b.X+b.Width)
		top, bottom = min(top, b.Y), max(bottom, b.Y+b.Height)
	}
	if len(l.Spots) == 0 {
		return [4]int{0, 0, 100, 100}
	}
	const margin = 30
	return [4]int{int(left) - margin, int(top) - margin, int(right-left) + 2*margin, int(bottom-top) + 2*margin}
}
