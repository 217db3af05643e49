package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	blockBegin = regexp.MustCompile(`^<!-- bench ([a-z]+) -->$`)
	blockEnd   = "<!-- /bench -->"
)

// write writes the blocks of the page from the figures in dir. A part whose
// figures are not there leaves its block alone.
func write(page, dir string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	var out strings.Builder
	inside := false
	for line := range strings.Lines(string(old)) {
		text := strings.TrimSpace(line)
		if text == blockEnd {
			inside = false
		}
		if !inside {
			out.WriteString(line)
		}
		m := blockBegin.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		if m[1] == "targets" {
			block, err := targetsBlock(dir)
			if err != nil {
				return err
			}
			out.WriteString(block)
			inside = true
			continue
		}
		p, ok := partByName(m[1])
		if !ok {
			return fmt.Errorf("%s: block of %q, which is no part", page, m[1])
		}
		block, err := blockOf(p, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		out.WriteString(block)
		inside = true
	}
	if inside {
		return fmt.Errorf("%s: a block has no end", page)
	}
	return os.WriteFile(page, []byte(out.String()), 0o644)
}

// blockOf returns the tables and plots of a part.
func blockOf(p part, dir string) (string, error) {
	list, machine, measured, err := figures(filepath.Join(dir, p.name+".txt"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s; %s.\n", machine, measured)
	for i, t := range p.tables {
		grid := t.grid(list)
		if len(grid.rows) == 0 {
			continue
		}
		b.WriteString("\n" + grid.markdown())
		if !t.plot {
			continue
		}
		name := fmt.Sprintf("%s-%d.svg", p.name, i+1)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(grid.svg()), 0o644); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n![%s](%s/%s)\n", grid.caption, filepath.Base(dir), name)
	}
	b.WriteString("\n")
	return b.String(), nil
}
