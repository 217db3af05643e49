package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a policy with a diagnostic can be used.
type Severity uint8

// The severities.
const (
	Warning Severity = iota
	Error
)

// String returns "warning" or "error".
func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// Diagnostic is something wrong at a place of a policy file.
type Diagnostic struct {
	Pos      Position
	Severity Severity
	Message  string
}

// String returns "file:line:column: severity: message".
func (d Diagnostic) String() string {
	return fmt.Sprintf("%s: %s: %s", d.Pos, d.Severity, d.Message)
}

// Diagnostics is all that is wrong with the files of a run, in the order of
// the files and of their lines.
type Diagnostics []Diagnostic

// HasErrors reports whether the policy can't be used.
func (l Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// reporter gathers diagnostics.
type reporter struct {
	list  Diagnostics
	files map[string]int // order of the files
}

func (r *reporter) errorf(pos Position, format string, args ...any) {
	r.list = append(r.list, Diagnostic{pos, Error, fmt.Sprintf(format, args...)})
}

// sorted returns what was gathered in the order of the files, each once.
func (r *reporter) sorted() Diagnostics {
	slices.SortStableFunc(r.list, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(r.files[a.Pos.File], r.files[b.Pos.File]),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return slices.Compact(r.list)
}

// oneOf lists what is allowed.
func oneOf(allowed []string) string { return strings.Join(allowed, ", ") }

// suggest returns "; did you mean ...?" if one of the allowed words is near.
func suggest(word string, allowed []string) string {
	best, distance := "", len(word)/3+2
	for _, a := range allowed {
		if d := editDistance(strings.ToLower(word), strings.ToLower(a)); d < distance {
			best, distance = a, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance is the number of letters to insert, remove, replace or swap
// with their neighbour (Damerau) that lead from a to b.
func editDistance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = last, row, before
	}
	return rows[1][len(b)]
}
