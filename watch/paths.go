package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// paths watches what a set of paths leads to: the names on the way to each,
// symbolic links included, so that it notices a file that is written, replaced,
// removed or made, a link that is swapped and a directory that is renamed. It
// looks for these itself, rather than with a library that watches directories,
// because only their names matter of busy directories such as / and /tmp.
type paths struct {
	settings
	inotify *inotify
	again   again
	closed  chan struct{} // the reading goroutine has ended
	close   func() error

	watches map[int][]string           // directories of a watch descriptor: one, or more with bind mounts
	wanted  map[string]map[string]bool // directory: names that matter; anyEntry: those for which entry is true
	mounts  string                     // the last summary of the mount table

	mu  sync.Mutex
	err error
}

// settings are what makes a watcher of paths one of files or of network
// namespaces.
type settings struct {
	paths   []string
	entry   func(name string) bool // which entries matter of a directory that a path leads to
	quiet   time.Duration          // a change is reported when none came for so long,
	most    time.Duration          // or so long after the first;
	saved   time.Duration          // or, if it completes a save and no burst was reported, so long; 0: as quiet
	summary func() (string, error) // what matters of the mount table, or nil
	table   int                    // descriptor of /proc/self/mountinfo, or -1
}

// anyEntry stands for all names in a directory that matter.
const anyEntry = ""

// changes are the events by which an entry of a directory becomes another.
const changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB

// completes are those by which a name leads to a file that is whole.
const completes = unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE

// open starts a watcher. It closes s.table in the end, and at once on errors.
func open(s settings) (*paths, error) {
	p := &paths{settings: s, again: make(again, 1), closed: make(chan struct{}), watches: map[int][]string{}}
	fail := func(err error) (*paths, error) {
		if p.inotify != nil {
			p.inotify.close()
		}
		if s.table >= 0 {
			unix.Close(s.table)
		}
		return nil, err
	}
	// Paths are relative to where the program is now, wherever it goes.
	p.paths = make([]string, len(s.paths))
	for i, path := range s.paths {
		var err error
		if p.paths[i], err = filepath.Abs(path); err != nil {
			return fail(err)
		}
	}
	var err error
	if p.inotify, err = openInotify(); err != nil {
		return fail(err)
	}
	if err := p.renew(); err != nil {
		return fail(err)
	}
	if _, err := p.mounted(); err != nil {
		return fail(err)
	}
	p.close = sync.OnceValue(func() error {
		p.inotify.ring()
		<-p.closed
		err := p.inotify.close()
		if s.table >= 0 {
			err = errors.Join(err, unix.Close(s.table))
		}
		return err
	})
	go p.loop()
	return p, nil
}

// Events returns a channel that says "look again" once for all changes since
// the last time it said so. It is never closed.
func (p *paths) Events() <-chan struct{} { return p.again }

// Err returns why not everything is watched any more, or nil. When that
// changes, Events says "look again".
func (p *paths) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Close ends the watching.
func (p *paths) Close() error { return p.close() }

// loop reads events until Close, and waits out bursts.
func (p *paths) loop() {
	defer close(p.closed)
	buf := make([]byte, 64<<10)
	var first, last time.Time // of a burst that is not reported yet
	var reported time.Time
	complete := false // nothing of it has to follow
	pause := func() time.Duration {
		if complete && p.saved > 0 && first.Sub(reported) >= p.quiet {
			return p.saved
		}
		return p.quiet
	}
	for {
		timeout := -1
		if !first.IsZero() {
			left := min(time.Until(last.Add(pause())), time.Until(first.Add(p.most)))
			timeout = max(0, int((left+time.Millisecond-1)/time.Millisecond))
		}
		woken, err := p.inotify.wait(p.table, timeout)
		if err != nil {
			p.fail(err)
			return
		}
		if woken.alarm { // only Close rings
			return
		}
		changed := false
		if woken.events {
			if err := p.inotify.read(buf, func(n notice) {
				if p.matters(n) {
					changed = true
					complete = n.mask&completes != 0 || complete && n.mask&unix.IN_ATTRIB != 0
				}
			}); err != nil {
				p.fail(err)
				return
			}
		}
		if woken.mounts && err == nil {
			var other bool
			other, err = p.mounted()
			changed = changed || other
		}
		now := time.Now()
		if changed || err != nil {
			if last = now; first.IsZero() {
				first = now
			}
		}
		if first.IsZero() || now.Before(last.Add(pause())) && now.Before(first.Add(p.most)) {
			continue
		}
		first, reported, complete = time.Time{}, now, false
		// What is new has to be watched before anybody looks at it.
		p.fail(errors.Join(err, p.renew()))
		p.again.set()
	}
}

// fail notes what is wrong, or that nothing is.
func (p *paths) fail(err error) {
	p.mu.Lock()
	changed := (p.err == nil) != (err == nil)
	p.err = err
	p.mu.Unlock()
	if changed {
		p.again.set()
	}
}

// matters reports whether an event is about a name that is wanted.
func (p *paths) matters(n notice) bool {
	if n.mask&(unix.IN_Q_OVERFLOW|unix.IN_UNMOUNT) != 0 {
		return true
	}
	dirs, ok := p.watches[n.watch]
	if !ok {
		return false
	}
	if n.mask&unix.IN_IGNORED != 0 { // the directory is gone
		delete(p.watches, n.watch)
		return true
	}
	return n.name != "" && slices.ContainsFunc(dirs, func(dir string) bool {
		names := p.wanted[dir]
		return names[n.name] || names[anyEntry] && p.entry(n.name)
	})
}

// mounted reports whether what matters of the mount table has changed.
func (p *paths) mounted() (bool, error) {
	if p.summary == nil {
		return false, nil
	}
	now, err := p.summary()
	if err != nil || now == p.mounts {
		return false, err
	}
	p.mounts = now
	return true, nil
}

// renew finds out which directories the paths lead through now, and watches
// those and no others. A directory that can't be watched because it vanished
// or may not be read is no error: the one above it is watched.
func (p *paths) renew() error {
	for {
		p.wanted = map[string]map[string]bool{}
		for _, path := range p.paths {
			trail(path, p.entry, func(dir, name string) {
				if p.wanted[dir] == nil {
					p.wanted[dir] = map[string]bool{}
				}
				p.wanted[dir][name] = true
			})
		}
		watches := map[int][]string{}
		added := false
		for dir := range p.wanted {
			wd, err := p.inotify.add(dir, changes)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrPermission) {
				continue
			}
			if err != nil {
				return err
			}
			added = added || !slices.Contains(p.watches[wd], dir)
			watches[wd] = append(watches[wd], dir)
		}
		for wd := range p.watches {
			if watches[wd] == nil {
				p.inotify.remove(wd)
			}
		}
		p.watches = watches
		if !added { // what was watched was watched while it was looked at
			return nil
		}
	}
}

// trail calls visit for each directory and name that the kernel looks up on
// the way of an absolute path, through symbolic links, as far as the path
// exists. If it leads to a directory, visit is called for it with anyEntry, and
// the links among its entries that matter are followed too.
func trail(path string, entry func(string) bool, visit func(dir, name string)) {
	dir, ok := walk(path, visit)
	if !ok {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	visit(dir, anyEntry)
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 && entry(e.Name()) {
			walk(filepath.Join(dir, e.Name()), visit)
		}
	}
}

// walk resolves an absolute path name by name. It returns what the path leads
// to, if that exists.
func walk(path string, visit func(dir, name string)) (string, bool) {
	const most = 40 // links, as in the kernel
	dir, names := "/", split(path)
	for links := 0; len(names) > 0; {
		name := names[0]
		names = names[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		visit(dir, name)
		at := filepath.Join(dir, name)
		info, err := os.Lstat(at)
		if err != nil {
			return "", false
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			dir = at
			continue
		}
		target, err := os.Readlink(at)
		if links++; err != nil || links > most {
			return "", false
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		names = append(split(target), names...)
	}
	return dir, true
}

// split returns the names in a path, without empty ones and ".".
func split(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// wrap adds what was to be watched to an error.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("watch %s: %w", what, err)
}
