package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes files below a directory of the test's own and works there:
// "name" is a file that holds its own name, "name/" a directory,
// "name -> target" a symbolic link.
func write(t *testing.T, entries ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, e := range entries {
		var err error
		if name, target, ok := strings.Cut(e, " -> "); ok {
			err = os.Symlink(target, name)
		} else if strings.HasSuffix(e, "/") {
			err = os.MkdirAll(e, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(e), 0o755); err == nil {
			err = os.WriteFile(e, []byte(e), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFiles(t *testing.T) {
	tests := []struct {
		name    string
		entries []string
		paths   string
		want    string // name=content of each file
	}{
		{"a file of any name", []string{"policy"}, "policy", "policy=policy"},
		{"files in the order given", []string{"b.yaml", "a.yaml"}, "b.yaml a.yaml", "b.yaml=b.yaml a.yaml=a.yaml"},
		{"a directory", []string{"p/b.yaml", "p/a.yml", "p/README.md", "p/.#a.yaml", "p/below/c.yaml", "p/d.yaml/"}, "p",
			"p/a.yml=p/a.yml p/b.yaml=p/b.yaml"},
		{"the directory itself", []string{"a.yaml"}, ".", "a.yaml=a.yaml"},
		{"a ConfigMap", []string{"p/..1/a.yaml", "p/..data -> ..1", "p/a.yaml -> ..data/a.yaml"}, "p", "p/a.yaml=p/..1/a.yaml"},
		{"a link to a directory", []string{"p/a.yaml", "q -> p"}, "q", "q/a.yaml=p/a.yaml"},
		{"standard input among files", []string{"a.yaml", "b.yaml"}, "a.yaml - b.yaml", "a.yaml=a.yaml stdin=input b.yaml=b.yaml"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			write(t, test.entries...)
			files, err := read(strings.Fields(test.paths), strings.NewReader("input"), nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, f.Name+"="+string(f.Data))
			}
			if g := strings.Join(got, " "); g != test.want {
				t.Errorf("got %s, want %s", g, test.want)
			}
		})
	}
}

func TestFilesErrors(t *testing.T) {
	tests := []struct {
		name    string
		entries []string
		paths   string
		want    []string // all in the error
	}{
		{"nothing", nil, "", []string{"no policy given", "- for standard input"}},
		{"missing", nil, "absent.yaml", []string{"absent.yaml: no such file"}},
		{"all that is missing", nil, "absent.yaml gone", []string{"absent.yaml: no such file", "gone: no such file"}},
		{"empty directory", []string{"p/README.md"}, "p", []string{"p: no *.yaml", "put a policy file there"}},
		{"dangling link", []string{"p/", "p/a.yaml -> nowhere"}, "p", []string{"p/a.yaml: no such file or directory: it is a link to nowhere"}},
		{"links in a circle", []string{"a -> b", "b -> a"}, "a", []string{"a: too many levels of symbolic links: its links lead in a circle"}},
		{"below a file", []string{"a.yaml"}, "a.yaml/b", []string{"a.yaml/b: not a directory"}},
		{"standard input twice", nil, "- -", []string{"standard input is given twice"}},
		{"a file twice", []string{"p/a.yaml"}, "p p/a.yaml", []string{"p/a.yaml: the same file as p/a.yaml, which p already brought in"}},
		{"a file by two names", []string{"p/a.yaml", "p/b.yaml -> a.yaml"}, "p", []string{"p/b.yaml: the same file as p/a.yaml"}},
		{"not a regular file", []string{"p/", "p/a.yaml -> /dev/null"}, "p", []string{"p/a.yaml: not a regular file"}},
		{"endless", nil, "/dev/zero", []string{"/dev/zero: larger than 64 MiB", "split it"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			write(t, test.entries...)
			files, err := read(strings.Fields(test.paths), strings.NewReader("input"), nil)
			if err == nil || files != nil {
				t.Fatalf("read %v, %v, want an error", files, err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestMissingIsNotExist(t *testing.T) {
	_, err := Files([]string{filepath.Join(t.TempDir(), "absent.yaml")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want one that is fs.ErrNotExist", err)
	}
}

func TestSizeBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	for size, ok := range map[int64]bool{MaxSize: true, MaxSize + 1: false} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		files, err := Files([]string{path})
		if (err == nil) != ok {
			t.Errorf("a file of %d bytes: %v", size, err)
		} else if ok && int64(len(files[0].Data)) != size {
			t.Errorf("read %d bytes of %d", len(files[0].Data), size)
		}
	}
}

func TestReread(t *testing.T) {
	write(t, "a.yaml", "b.yaml", "c.yaml")
	paths := []string{"a.yaml", "b.yaml", "c.yaml"}
	former, err := Files(paths)
	if err != nil {
		t.Fatal(err)
	}
	// As large as before.
	if err := os.WriteFile("b.yaml", []byte("B.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := Reread(paths, former)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a.yaml", "B.yaml", "c.yaml"} {
		if got := string(files[i].Data); got != want {
			t.Errorf("%s holds %s, want %s", paths[i], got, want)
		}
		if same := &files[i].Data[0] == &former[i].Data[0]; same != (i != 1) {
			t.Errorf("%s shares the memory of the former text: %t", paths[i], same)
		}
	}
}
