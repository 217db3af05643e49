package watch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sockns/sockns/source"
)

func TestTrail(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"p/..1", "etc/deep"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(top, "p/..1/a.yaml"), "x")
	write(t, filepath.Join(top, "etc/b.yaml"), "x")
	for link, target := range map[string]string{
		"p/..data": "..1", "p/a.yaml": "..data/a.yaml", "p/README": "/nowhere",
		"up.yaml": "etc/deep/../b.yaml", "absolute": top + "/etc", "loop": "loop", "dangling": "etc/absent/x",
	} {
		if err := os.Symlink(target, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"etc/b.yaml":    "/etc etc/b.yaml",
		"etc":           "/etc etc/*",
		"etc/none/x":    "/etc etc/none",
		"etc/b.yaml/x":  "/etc etc/b.yaml etc/b.yaml/x",
		"up.yaml":       "/up.yaml /etc etc/deep etc/b.yaml",
		"absolute":      "/absolute /etc etc/*",
		"dangling":      "/dangling /etc etc/absent",
		"p":             "/p p/* p/a.yaml p/..data p/..1 p/..1/a.yaml",
		"loop":          "/loop",
		".//etc/./deep": "/etc etc/deep etc/deep/*",
	} {
		var got []string
		trail(top+"/"+path, source.IsPolicyFile, func(dir, name string) {
			if name == anyEntry {
				name = "*"
			}
			step := dir + "/" + name
			if rest, ok := strings.CutPrefix(step, top+"/"); ok { // not the way to the test's own directory
				if !strings.Contains(rest, "/") {
					rest = "/" + rest
				}
				if !slices.Contains(got, rest) {
					got = append(got, rest)
				}
			}
		})
		if g := strings.Join(got, " "); g != want {
			t.Errorf("trail of %s = %q, want %q", path, g, want)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// signalled waits for "look again".
func signalled(t *testing.T, events <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-events:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: not noticed within 5 s", what)
	}
}

// silent fails if there is a "look again" within a short time.
func silent(t *testing.T, events <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-events:
		t.Errorf("%s: announced", what)
	case <-time.After(filesQuiet * 3):
	}
}

func TestFiles(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	must(os.MkdirAll("dir", 0o755))
	must(os.MkdirAll("config/..1", 0o755))
	must(os.MkdirAll("config/..2", 0o755))
	write(t, "file.yaml", "1")
	write(t, "config/..1/a.yaml", "1")
	write(t, "config/..2/a.yaml", "2")
	must(os.Symlink("..1", "config/..data"))
	must(os.Symlink("..data/a.yaml", "config/a.yaml"))
	f, err := OpenFiles("file.yaml", "dir", "config", "later/x.yaml", "-")
	must(err)
	defer f.Close()
	silent(t, f.Events(), "nothing")
	for _, step := range []struct {
		what   string
		change func()
		seen   bool
	}{
		{"a file is written", func() { write(t, "file.yaml", "2") }, true},
		{"a file is replaced, as editors do", func() {
			write(t, "file.yaml~", "3")
			must(os.Rename("file.yaml~", "file.yaml"))
		}, true},
		{"a file is moved away and written anew", func() {
			must(os.Rename("file.yaml", "file.yaml.bak"))
			write(t, "file.yaml", "4")
		}, true},
		{"another file", func() { write(t, "other.yaml", "1") }, false},
		{"a file is removed", func() { must(os.Remove("file.yaml")) }, true},
		{"a file is there again", func() { write(t, "file.yaml", "5") }, true},
		{"a new file in a directory", func() { write(t, "dir/a.yaml", "1") }, true},
		{"an editor's file in a directory", func() { write(t, "dir/.a.yaml.swp", "1") }, false},
		{"a file in a directory is removed", func() { must(os.Remove("dir/a.yaml")) }, true},
		{"a ConfigMap is swapped", func() {
			must(os.Symlink("..2", "config/..new"))
			must(os.Rename("config/..new", "config/..data"))
		}, true},
		{"the new side of a ConfigMap is written", func() { write(t, "config/..2/a.yaml", "3") }, true},
		{"the old side of a ConfigMap is written", func() { write(t, "config/..1/a.yaml", "3") }, false},
		{"a directory on the way appears", func() { must(os.Mkdir("later", 0o755)) }, true},
		{"a file in it appears", func() { write(t, "later/x.yaml", "1") }, true},
		{"a directory is exchanged", func() {
			must(os.Rename("dir", "old"))
			must(os.Mkdir("dir", 0o755))
		}, true},
		{"a file in the new directory", func() { write(t, "dir/b.yaml", "1") }, true},
		{"a file in the old directory", func() { write(t, "old/b.yaml", "1") }, false},
		{"a link to a file appears in a directory", func() { must(os.Symlink("../old/b.yaml", "dir/c.yaml")) }, true},
		{"what a link leads to is written", func() { write(t, "old/b.yaml", "2") }, true},
	} {
		step.change()
		if step.seen {
			signalled(t, f.Events(), step.what)
		}
		silent(t, f.Events(), "after: "+step.what)
	}
	if err := f.Err(); err != nil {
		t.Error(err)
	}
}

// TestFilesBursts: many changes are one event, or two where they pause, and
// changes without end are some events.
func TestFilesBursts(t *testing.T) {
	t.Chdir(t.TempDir())
	f, err := OpenFiles("a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 20 {
		write(t, "a.yaml", "x")
		time.Sleep(time.Millisecond)
	}
	signalled(t, f.Events(), "a burst")
	select {
	case <-f.Events():
	case <-time.After(filesQuiet * 3):
	}
	silent(t, f.Events(), "after a burst")
	stop := time.Now().Add(filesMost * 3 / 2)
	events := 0
	for time.Now().Before(stop) {
		write(t, "a.yaml", "x")
		select {
		case <-f.Events():
			events++
		case <-time.After(filesQuiet / 10):
		}
	}
	if events == 0 || events > 5 {
		t.Errorf("%d events while a file changes all the time", events)
	}
}

func TestFilesClose(t *testing.T) {
	checkLeaks(t)
	for range 10 {
		f, err := OpenFiles("/tmp", "/etc/sockns/absent.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
