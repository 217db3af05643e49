// Report runs the benchmarks and writes what they found to docs/benchmarks.md.
//
// The page belongs to whoever edits it, but for the blocks between
//
//	<!-- bench NAME -->
//	<!-- /bench -->
//
// which are the tables and plots of one part (parts.go). The figures behind a
// block are kept in docs/benchmarks/NAME.txt in the format of the Go benchmarks,
// so that benchstat compares two runs, and blocks are written from those files:
// a run of one part leaves the others as they were.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "run these parts alone, divided by commas; none: write the page from the figures that are there")
	page := flag.String("page", "docs/benchmarks.md", "the page to write")
	flag.Parse()
	if err := report(*page, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func report(page, only string) error {
	dir := strings.TrimSuffix(page, filepath.Ext(page))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	for _, p := range chosen {
		if err := run(p, filepath.Join(dir, p.name+".txt")); err != nil {
			return fmt.Errorf("part %s: %w", p.name, err)
		}
	}
	return write(page, dir)
}

// choose returns the parts that a list names, all if it is empty.
func choose(list string) ([]part, error) {
	switch list {
	case "":
		return parts, nil
	case "none":
		return nil, nil
	}
	var chosen []part
	for name := range strings.SplitSeq(list, ",") {
		p, ok := partByName(name)
		if !ok {
			return nil, fmt.Errorf("no part %q (there are %s)", name, strings.Join(partNames(), ", "))
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// run runs a part's benchmarks and keeps their output, if they succeed.
func run(p part, file string) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "machine: %s\nmeasured: %s\n", machine(), time.Now().UTC().Format(time.DateOnly))
	for _, b := range p.benchmarks {
		args := []string{"test", "-run", "^$", "-bench", b.pattern, "-benchtime", b.time, "-timeout", "20m", b.pkg}
		fmt.Fprintln(os.Stderr, "go", strings.Join(args, " "))
		cmd := exec.Command("go", args...)
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, os.Stderr), os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
