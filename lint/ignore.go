package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sockns/sockns/model"
)

// ignore is a comment that asks to ignore findings on a line:
//
//   - {to: any} # lint:ignore redundant-rule,shadowed-rule why
//
// On a line of its own it speaks of the next line that is no comment.
type ignore struct {
	pos    model.Position
	line   int // that it speaks of
	ids    []string
	reason string
	used   bool
}

var directive = regexp.MustCompile(`(?:^|\s)#\s*lint:ignore(?:[ \t]+(\S+))?(?:[ \t]+(\S.*))?$`)

// ignores reads the comments of a file.
func ignores(f model.File) []*ignore {
	if !strings.Contains(string(f.Data), "lint:ignore") {
		return nil
	}
	var list, waiting []*ignore // waiting for the line that they speak of
	for i, line := range strings.Split(string(f.Data), "\n") {
		text := strings.TrimSpace(line)
		own := strings.HasPrefix(text, "#")
		if !own && text != "" {
			for _, w := range waiting {
				w.line = i + 1
			}
			waiting = nil
		}
		m := directive.FindStringSubmatchIndex(strings.TrimRight(line, " \t\r"))
		if m == nil {
			continue
		}
		g := &ignore{pos: model.Position{File: f.Name, Line: i + 1, Column: utf8.RuneCountInString(line[:m[0]+strings.Index(line[m[0]:], "#")]) + 1}, line: i + 1}
		if m[2] >= 0 {
			g.ids = strings.Split(line[m[2]:m[3]], ",")
		}
		if m[4] >= 0 {
			g.reason = line[m[4]:m[5]]
		}
		list = append(list, g)
		if own {
			waiting = append(waiting, g)
		}
	}
	return list
}

// wrong says what is wrong with a comment, or "".
func (g *ignore) wrong() (why, remedy string) {
	var known []string
	for _, k := range Kinds {
		known = append(known, k.ID)
	}
	for _, id := range g.ids {
		if !slices.Contains(known, id) {
			return fmt.Sprintf("lint:ignore names %q, which is no kind of finding", id), "name one or some of " + strings.Join(known, ", ")
		}
	}
	switch {
	case len(g.ids) == 0:
		return "lint:ignore names no kind of finding", "write lint:ignore ID why"
	case g.reason == "":
		return "lint:ignore gives no reason", "write why behind the id, for who reads it next"
	case !g.used:
		return fmt.Sprintf("lint:ignore %s ignores nothing", strings.Join(g.ids, ",")), "remove it, or put it where the finding is"
	}
	return "", ""
}

// ignoring leaves out what comments ask to ignore, and adds the comments that
// ignore nothing. One without a reason is not heard.
func ignoring(list []Finding, files []model.File) []Finding {
	type place struct {
		file string
		line int
	}
	at := make(map[place][]*ignore)
	var all []*ignore
	for _, f := range files {
		for _, g := range ignores(f) {
			at[place{f.Name, g.line}] = append(at[place{f.Name, g.line}], g)
			all = append(all, g)
		}
	}
	kept := []Finding{} // not nil: it was checked
	for _, f := range list {
		ignored := false
		for _, g := range at[place{f.Pos.File, f.Pos.Line}] {
			if slices.Contains(g.ids, f.ID) && g.reason != "" {
				ignored, g.used = true, true
			}
		}
		if !ignored {
			kept = append(kept, f)
		}
	}
	for _, g := range all {
		if why, remedy := g.wrong(); why != "" {
			kept = append(kept, Finding{ID: UselessIgnore, Pos: g.pos, Message: why, Remedy: remedy})
		}
	}
	return sorted(kept, files)
}
