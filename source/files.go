// Package source gets policies from where operators keep them: files,
// directories and standard input.
package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// MaxSize is how large one policy file may be. It is a bound against a wrong
// path (a device, a core dump), not one that a policy comes near: 10,000
// namespaces are some 10 MB.
const MaxSize = 64 << 20

// Stdin is the path that means standard input, and StdinName the name that
// diagnostics give it.
const (
	Stdin     = "-"
	StdinName = "stdin"
)

// Files reads the files of a policy, in order. A path is a file of any name, a
// directory (all its *.yaml and *.yml, sorted by name, without hidden files and
// without those of directories below) or [Stdin]. Names are as given, with the
// directory in front, so that an editor finds them from where the command ran.
//
// The error joins everything that is wrong with any path, and each part says
// what to do. Nothing is returned with an error.
func Files(paths []string) ([]model.File, error) { return Reread(paths, nil) }

// Reread is [Files] once more: files whose text is that of former ones share its
// memory, so that to compare them takes no time. All are read: a thousandth of
// what it takes to parse them is not worth to believe in times and sizes.
func Reread(paths []string, former []model.File) ([]model.File, error) {
	return read(paths, os.Stdin, former)
}

func read(paths []string, stdin io.Reader, former []model.File) ([]model.File, error) {
	r := reader{stdin: stdin, former: make(map[string][]byte, len(former))}
	for _, f := range former {
		r.former[f.Name] = f.Data
	}
	if len(paths) == 0 {
		r.fail(errors.New("no policy given: name a file, a directory, or - for standard input"))
	}
	for _, path := range paths {
		r.path(path)
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return r.files, nil
}

// reader gathers files and errors.
type reader struct {
	stdin  io.Reader // nil once it was read
	files  []model.File
	seen   []seen
	errs   []error
	former map[string][]byte // texts by name
	buf    []byte            // is nobody's
}

// seen is a file that was read, and the path that led to it.
type seen struct {
	name, by string
	info     fs.FileInfo
}

// unreadable reports a path that the system has no file for.
func (r *reader) unreadable(path string, err error) {
	var why *fs.PathError
	if errors.As(err, &why) {
		err = why.Err
	}
	remedy := ""
	switch {
	case errors.Is(err, unix.ELOOP):
		remedy = ": its links lead in a circle"
	case errors.Is(err, fs.ErrNotExist):
		if target, link := os.Readlink(path); link == nil {
			remedy = fmt.Sprintf(": it is a link to %s", target)
		} else {
			remedy = ": name an existing one, or - for standard input"
		}
	}
	r.fail(fmt.Errorf("%s: %w%s", path, err, remedy))
}

func (r *reader) fail(err error) { r.errs = append(r.errs, err) }

// path reads what one path stands for.
func (r *reader) path(path string) {
	if path == Stdin {
		r.standardInput()
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		r.unreadable(path, err)
	case info.IsDir():
		r.directory(path)
	default:
		r.file(path, path, info)
	}
}

func (r *reader) standardInput() {
	if r.stdin == nil {
		r.fail(errors.New("-: standard input is given twice: it can be read only once"))
		return
	}
	r.add(StdinName, r.stdin, 0)
	r.stdin = nil
}

// directory reads the policy files of a directory. Symbolic links are
// followed, as in a directory that Kubernetes makes of a ConfigMap.
func (r *reader) directory(dir string) {
	names, err := List(dir)
	if err != nil {
		r.unreadable(dir, err)
		return
	}
	if len(names) == 0 {
		r.fail(fmt.Errorf("%s: no *.yaml and no *.yml in this directory (those of directories below are not looked for): "+
			"put a policy file there, or name another directory", dir))
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			r.unreadable(path, err)
		case info.IsDir():
			// A directory with such a name is none of the directory's files.
		case !info.Mode().IsRegular():
			r.fail(fmt.Errorf("%s: not a regular file (%s): move it away, or name it itself", path, info.Mode().Type()))
		default:
			r.file(path, dir, info)
		}
	}
}

// file reads one file, which a path of its own or of a directory led to.
func (r *reader) file(name, by string, info fs.FileInfo) {
	for _, s := range r.seen {
		if info.Mode().IsRegular() && os.SameFile(s.info, info) {
			r.fail(fmt.Errorf("%s: the same file as %s, which %s already brought in: name it once", name, s.name, s.by))
			return
		}
	}
	r.seen = append(r.seen, seen{name, by, info})
	f, err := os.Open(name)
	if err != nil {
		r.unreadable(name, err)
		return
	}
	defer f.Close()
	r.add(name, f, info.Size())
}

// add reads a file's content, which is about as large as size says.
func (r *reader) add(name string, from io.Reader, size int64) {
	if size = min(size, MaxSize) + bytes.MinRead; int64(cap(r.buf)) < size {
		r.buf = make([]byte, 0, size)
	}
	into := bytes.NewBuffer(r.buf[:0])
	_, err := into.ReadFrom(io.LimitReader(from, MaxSize+1))
	data := into.Bytes()
	r.buf = data
	if former, known := r.former[name]; known && bytes.Equal(former, data) {
		data = former
	} else {
		r.buf = nil
	}
	switch {
	case err != nil:
		r.fail(fmt.Errorf("%s: %w", name, err))
	case len(data) > MaxSize:
		r.fail(fmt.Errorf("%s: larger than %d MiB, which no policy file may be: split it into several", name, MaxSize>>20))
	default:
		r.files = append(r.files, model.File{Name: name, Data: data})
	}
}

// List returns the names of the entries of a directory that are policy files
// by their name, sorted. Whether one is a file at all is not looked at.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if IsPolicyFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// IsPolicyFile reports whether a directory's entry of that name is a policy
// file: *.yaml or *.yml, not hidden (editors keep their locks in .#name.yaml).
func IsPolicyFile(name string) bool {
	ext := filepath.Ext(name)
	return name[0] != '.' && (ext == ".yaml" || ext == ".yml")
}
