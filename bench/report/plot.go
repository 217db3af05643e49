package main

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// The plot's size, and the margins around its axes, in pixels.
const (
	plotWidth, plotHeight  = 720.0, 360.0
	left, right, top, foot = 70.0, 210.0, 30.0, 40.0
)

var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"}

// svg draws the grid: a curve for each row, both axes logarithmic.
func (g *grid) svg() string {
	var xs []float64
	for _, c := range g.cols {
		if x, err := strconv.ParseFloat(c, 64); err == nil && x > 0 {
			xs = append(xs, x)
		}
	}
	low, high := math.Inf(1), 0.0
	for _, v := range g.cells {
		if v > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if len(xs) == 0 || high == 0 {
		xs, low, high = []float64{1}, 1, 1
	}
	xLow, xHigh := xs[0], xs[0]
	for _, x := range xs {
		xLow, xHigh = min(xLow, x), max(xHigh, x)
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.001)))
	atX := func(x float64) float64 { return left + (plotWidth-left-right)*fraction(x, xLow, xHigh) }
	atY := func(y float64) float64 { return plotHeight - foot - (plotHeight-top-foot)*fraction(y, low, high) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="white"/>`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<text x="%g" y="18" font-weight="bold">%s, %s</text>`+"\n", left, html.EscapeString(g.caption), html.EscapeString(g.unit))
	for y := low; y <= high*1.001; y *= 10 {
		fmt.Fprintf(&b, `<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" stroke="#ddd"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, atY(y), plotWidth-right, atY(y), left-6, atY(y)+4, number(y))
	}
	for _, x := range xs {
		fmt.Fprintf(&b, `<text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n", atX(x), plotHeight-foot+18, number(x))
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n", (left+plotWidth-right)/2, plotHeight-4, html.EscapeString(g.col))
	for i, r := range g.rows {
		colour := colours[i%len(colours)]
		var points []string
		for _, c := range g.cols {
			v, ok := g.cells[[2]string{r, c}]
			x, err := strconv.ParseFloat(c, 64)
			if !ok || v <= 0 || err != nil || x <= 0 {
				continue
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", atX(x), atY(v)))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", atX(x), atY(v), colour)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
		y := top + 16*float64(i)
		fmt.Fprintf(&b, `<rect x="%g" y="%g" width="12" height="3" fill="%s"/><text x="%g" y="%g">%s</text>`+"\n",
			plotWidth-right+14, y, colour, plotWidth-right+32, y+6, html.EscapeString(r))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// fraction is how far v is from low to high on a logarithmic scale.
func fraction(v, low, high float64) float64 {
	if high <= low {
		return 0.5
	}
	return math.Log(v/low) / math.Log(high/low)
}
