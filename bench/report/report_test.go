package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPage writes a block from figures and leaves the rest of the page alone.
func TestPage(t *testing.T) {
	parts = []part{{name: "speed", tables: []table{
		{benchmark: "Datagram", caption: "a datagram", row: "rules", col: "namespaces", unit: "p50-ns", show: "us", base: "empty", plot: true},
	}}}
	dir := t.TempDir()
	page, figures := filepath.Join(dir, "page.md"), filepath.Join(dir, "page")
	for name, text := range map[string]string{
		page: "# Title\n<!-- bench speed -->\nold figures\n<!-- /bench -->\nby hand\n",
		filepath.Join(figures, "speed.txt"): "machine: a machine\nmeasured: today\n" +
			"BenchmarkDatagram/rules=empty/namespaces=10-2 1 2000 p50-ns\n" +
			"BenchmarkDatagram/rules=sockns/namespaces=10-2 1 3000 p50-ns\n" +
			"BenchmarkDatagram/rules=sockns/namespaces=1000-2 1 2500 p50-ns 9 other\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := report(page, "none"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Title
<!-- bench speed -->

a machine; today.

**a datagram**, us (and times *empty*)

| rules, by namespaces | 10 | 1000 |
| --- | ---: | ---: |
| empty | 2 | |
| sockns | 3 (1.50) | 2.5 (1.25) |

![a datagram](page/speed-1.svg)

<!-- /bench -->
by hand
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	svg, err := os.ReadFile(filepath.Join(figures, "speed-1.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
}

func TestChoose(t *testing.T) {
	if _, err := choose("nonsense"); err == nil {
		t.Error("a part that is none is not refused")
	}
}
