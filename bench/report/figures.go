package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// figure is one value that a benchmark reported.
type figure struct {
	benchmark string
	keys      []pair // of the sub-benchmark, in order
	unit      string
	value     float64
}

type pair struct{ key, value string }

func (f *figure) get(key string) string {
	for _, p := range f.keys {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// rest returns the keys that are not among those given, as text.
func (f *figure) rest(but ...string) string {
	var b []string
	for _, p := range f.keys {
		switch {
		case slices.Contains(but, p.key):
		case p.key == "":
			b = append(b, p.value)
		default:
			b = append(b, p.key+" "+p.value)
		}
	}
	return strings.Join(b, ", ")
}

// figures reads the file of a part. Of a benchmark that ran several times the
// middle value counts.
func figures(file string) (list []figure, machine, measured string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", "", err
	}
	defer f.Close()
	type name struct{ full, unit string }
	values := make(map[name][]float64)
	place := make(map[name]int)
	r := benchfmt.NewReader(f, file)
	for r.Scan() {
		res, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		machine, measured = res.GetConfig("machine"), res.GetConfig("measured")
		base, parts := res.Name.Parts()
		var keys []pair
		for _, p := range parts {
			text := string(p)
			if text[0] == '-' {
				continue // GOMAXPROCS
			}
			key, value, ok := strings.Cut(strings.TrimPrefix(text, "/"), "=")
			if !ok {
				key, value = "", key
			}
			keys = append(keys, pair{key, value})
		}
		for _, v := range res.Values {
			unit, value := v.Unit, v.Value
			if v.OrigUnit != "" {
				unit, value = v.OrigUnit, v.OrigValue
			}
			n := name{res.Name.String(), unit}
			if _, known := place[n]; !known {
				place[n] = len(list)
				list = append(list, figure{benchmark: string(base), keys: keys, unit: unit})
			}
			values[n] = append(values[n], value)
		}
	}
	if err := r.Err(); err != nil {
		return nil, "", "", fmt.Errorf("%s: %w", file, err)
	}
	for n, at := range place {
		slices.Sort(values[n])
		list[at].value = values[n][len(values[n])/2]
	}
	return list, machine, measured, nil
}
