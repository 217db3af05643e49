package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// target is what the project wants to reach, and the figure that tells whether it has.
type target struct {
	what, want string
	limit      float64
	least      bool // the figure has to be at least the limit, not at most
	show       string
	figure     func(f finder) float64 // NaN-free: 0 if there are no figures for it
}

// finder finds figures of all parts.
type finder []figure

// get returns a figure: a benchmark, its unit, and its name's keys and values in
// turns; 0 if it was not measured.
func (list finder) get(benchmark, unit string, keys ...string) float64 {
next:
	for i := range list {
		f := &list[i]
		if f.benchmark != benchmark || f.unit != unit {
			continue
		}
		for k := 0; k < len(keys); k += 2 {
			if f.get(keys[k]) != keys[k+1] {
				continue next
			}
		}
		return f.value
	}
	return 0
}

// over is a figure of rules for some number of namespaces, in times another one.
func over(benchmark, rules, n, otherRules, otherN string) func(finder) float64 {
	return func(f finder) float64 {
		a := f.get(benchmark, "p50-ns", "rules", rules, "namespaces", n)
		b := f.get(benchmark, "p50-ns", "rules", otherRules, "namespaces", otherN)
		if b == 0 {
			return 0
		}
		return a / b
	}
}

// control is a figure of the policies of some namespaces, in another unit.
func control(benchmark, unit, policies, n string, factor float64) func(finder) float64 {
	return func(f finder) float64 { return factor * f.get(benchmark, unit, "policies", policies, "namespaces", n) }
}

const (
	many      = "10000"
	different = "different"
	few       = "shared"
)

var targets = []target{
	{"a datagram, 10,000 namespaces", "at most 1.05 times 10 namespaces", 1.05, false, "", over("Datagram", "sockns", many, "sockns", "10")},
	{"a TCP connection, 10,000 namespaces", "at most 1.05 times 10 namespaces", 1.05, false, "", over("Connect", "sockns", many, "sockns", "10")},
	{"a datagram, 10,000 namespaces", "at most 1.25 times empty base chains", 1.25, false, "", over("Datagram", "sockns", many, "empty", "0")},
	{"a TCP connection, 10,000 namespaces", "at most 1.10 times empty base chains", 1.10, false, "", over("Connect", "sockns", many, "empty", "0")},
	{"request and answer in an open connection", "at most 1.03 times empty base chains", 1.03, false, "", over("Exchange", "sockns", many, "empty", "0")},
	{"bulk in an open connection", "at most 1.03 times empty base chains", 1.03, false, "", over("Bulk", "sockns", many, "empty", "0")},
	{"a datagram, linear rules by hand, 1,000 namespaces", "at least 50 times sockns", 50, true, "", over("Datagram", "linear-by-hand", "1000", "sockns", "1000")},
	{"parse and compile, cold, all different", "under 1 s", 1, false, "s", control("Cold", "ns/op", different, many, 1e-9)},
	{"parse and compile, cold: the heap", "under 200 MiB", 200, false, "MiB", control("Cold", "heap-MiB", different, many, 1)},
	{"first apply, the commit, all different", "under 1.5 s", 1.5, false, "s", control("Apply", "commit-ms/op", different, many, 1e-3)},
	{"first apply, the commit, a hundred shared", "under 0.1 s", 0.1, false, "s", control("Apply", "commit-ms/op", few, many, 1e-3)},
	{"kernel memory of a namespace, all different", "under 6 KiB", 6, false, "KiB", control("KernelMemory", "KiB/namespace", different, many, 1)},
	{"kernel memory of a namespace, a hundred shared", "under 0.5 KiB", 0.5, false, "KiB", control("KernelMemory", "KiB/namespace", few, many, 1)},
	{"one service restarted, a hundred shared", "p50 under 1 ms", 1, false, "ms", control("Birth", "p50-us", few, many, 1e-3)},
	{"one service restarted, 1,000 namespaces", "p50 under 0.15 ms", 0.15, false, "ms", control("Birth", "p50-us", few, "1000", 1e-3)},
	{"the same by the fastest of the others", "at least 50 times sockns", 50, true, "", func(f finder) float64 {
		ours := f.get("Birth", "p50-us", "policies", few, "namespaces", many)
		if ours == 0 {
			return 0
		}
		return f.get("Restart", "p50-us", "way", "nft-element", "namespaces", many) / ours
	}},
	{"one rule edited in one of a hundred files, a hundred shared", "under 50 ms, saved to committed", 50, false, "ms", control("EditFile", "p50-us", few, many, 1e-3)},
	{"the same, all different", "under 50 ms, saved to committed", 50, false, "ms", control("EditFile", "p50-us", different, many, 1e-3)},
	{"plan with nothing to do, a hundred shared", "under 0.2 s", 0.2, false, "s", control("Plan", "ns/op", few, many, 1e-9)},
	{"plan with nothing to do, all different", "under 0.2 s", 0.2, false, "s", control("Plan", "ns/op", different, many, 1e-9)},
	{"memory of the controller, a hundred shared", "under 100 MiB", 100, false, "MiB", control("Memory", "MiB", few, many, 1)},
	{"memory of the controller, all different", "under 100 MiB", 100, false, "MiB", control("Memory", "MiB", different, many, 1)},
}

// targetsBlock returns the table of targets, from the figures of all parts.
func targetsBlock(dir string) (string, error) {
	var all finder
	for _, p := range parts {
		list, _, _, err := figures(filepath.Join(dir, p.name+".txt"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		all = append(all, list...)
	}
	var b strings.Builder
	b.WriteString("\n| what, at 10,000 namespaces with 8 rules each | wanted | is | |\n| --- | --- | ---: | --- |\n")
	for _, t := range targets {
		v := t.figure(all)
		is, verdict := "", ""
		if v > 0 {
			is, verdict = strings.TrimSpace(number(v)+" "+t.show), "reached"
			if t.show == "" && v < 10 {
				is = strconv.FormatFloat(v, 'f', 3, 64) // a ratio near its limit
			}
			if t.least == (v < t.limit) && v != t.limit {
				verdict = "**not reached**"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", t.what, t.want, is, verdict)
	}
	b.WriteString("\n")
	return b.String(), nil
}
