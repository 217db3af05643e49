package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// grid is a table of figures.
type grid struct {
	caption, unit string
	corner        string // what the rows are
	col           string // what the columns are
	cols, rows    []string
	cells         map[[2]string]float64 // by row and column
	units         map[string]string     // of columns that have units of their own
	base          string
}

// grid gathers the figures of a table.
func (t *table) grid(list []figure) *grid {
	g := &grid{
		caption: t.caption, unit: t.show, col: t.col, base: t.base, corner: t.row,
		cells: make(map[[2]string]float64), units: make(map[string]string),
	}
	if g.caption == "" {
		g.caption = t.benchmark
	}
	for i := range list {
		f := &list[i]
		if f.benchmark != t.benchmark || t.unit != "" && f.unit != t.unit {
			continue
		}
		row, col := f.rest(t.col), f.get(t.col)
		value := f.value
		if t.unit == "" {
			row, col = f.rest(), f.unit
			g.units[col] = ""
			if f.value == 0 && f.unit == "ns/op" {
				continue // a benchmark that has figures of its own
			}
		} else {
			if t.row != "" && f.get(t.row) != "" {
				row = f.get(t.row)
				if more := f.rest(t.row, t.col); more != "" {
					row += ", " + more
				}
			}
			value *= scale(t.unit, t.show)
		}
		if !slices.Contains(g.rows, row) {
			g.rows = append(g.rows, row)
		}
		if !slices.Contains(g.cols, col) {
			g.cols = append(g.cols, col)
		}
		g.cells[[2]string{row, col}] = value
	}
	return g
}

// scales are what a figure in one unit is multiplied with to be in another.
func scale(from, to string) float64 {
	seconds := map[string]float64{"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
	bytes := map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
	name := func(unit string) string {
		_, last, ok := strings.Cut(unit, "-")
		if !ok {
			last = unit
		}
		head, _, _ := strings.Cut(last, "/")
		return head
	}
	for _, family := range []map[string]float64{seconds, bytes} {
		a, okA := family[name(from)]
		b, okB := family[name(to)]
		if okA && okB {
			return a / b
		}
	}
	return 1
}

func (g *grid) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**", g.caption)
	if g.unit != "" {
		fmt.Fprintf(&b, ", %s", g.unit)
	}
	if g.base != "" {
		fmt.Fprintf(&b, " (and times *%s*)", g.base)
	}
	corner := g.corner
	if g.col != "" {
		corner = strings.TrimPrefix(corner+", by "+g.col, ", ")
	}
	fmt.Fprintf(&b, "\n\n| %s |", corner)
	for _, c := range g.cols {
		if c == "" {
			c = g.unit
		}
		fmt.Fprintf(&b, " %s |", c)
	}
	b.WriteString("\n| ---" + strings.Repeat(" | ---:", len(g.cols)) + " |\n")
	for _, r := range g.rows {
		fmt.Fprintf(&b, "| %s |", r)
		for _, c := range g.cols {
			v, ok := g.cells[[2]string{r, c}]
			if !ok {
				b.WriteString(" |")
				continue
			}
			b.WriteString(" " + number(v))
			if base, ok := g.baseOf(r, c); ok && base > 0 {
				fmt.Fprintf(&b, " (%.2f)", v/base)
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// baseOf returns what a row's figure is compared with. A base that does not grow
// has one column.
func (g *grid) baseOf(row, col string) (float64, bool) {
	if g.base == "" || row == g.base {
		return 0, false
	}
	if v, ok := g.cells[[2]string{g.base, col}]; ok {
		return v, true
	}
	for _, c := range g.cols {
		if v, ok := g.cells[[2]string{g.base, c}]; ok {
			return v, true
		}
	}
	return 0, false
}

// number prints a figure with three digits that count, and thousands divided.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
