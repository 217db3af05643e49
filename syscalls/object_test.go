package syscalls

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// compiler is what made the committed object; another makes another.
const compiler = "14.0.6"

// TestObject: the committed object and its Go file are what `make generate`
// makes of the source.
func TestObject(t *testing.T) {
	const not = "SKIPPED, NOT CHECKED that the committed object is of the source: "
	version, err := exec.Command("clang-14", "--version").CombinedOutput()
	if err != nil {
		if os.Getenv("SOCKNS_REQUIRE_CLANG") != "" {
			t.Fatalf("clang-14: %v", err)
		}
		t.Skip(not + "no clang-14 (make clang)")
	}
	if line, _, _ := strings.Cut(string(version), "\n"); !strings.Contains(line, compiler) {
		t.Skipf("%sit is of clang %s, and here is %s", not, compiler, line)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(doc), "//go:generate go tool bpf2go ")
	if !ok {
		t.Fatal("no go:generate in doc.go")
	}
	dir := t.TempDir()
	args := append([]string{"tool", "bpf2go", "-output-dir", dir}, strings.Fields(line)...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("bpf2go: %v\n%s", err, out)
	}
	for _, name := range []string{"program_bpfel.o", "program_bpfel.go"} {
		made, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made, committed) {
			t.Errorf("%s is not what the source makes with bookworm's compiler and headers: run make generate, and commit it", name)
		}
	}
}
