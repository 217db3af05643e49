package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/model"
)

// Kind is what happened to a cgroup.
type Kind uint8

// The kinds of events.
const (
	// Born: there is a cgroup of this path that was not there before, or was
	// removed and made again. It may be gone already.
	Born Kind = 1 + iota
	// Died: a cgroup of this path was removed. It may be there again. No
	// death of a cgroup that was announced goes without; but one that lived
	// in a new directory only until that could be watched (microseconds) is
	// not announced at all, and may have been seen by a look at the tree. Its
	// id is not used again, so what still knows it does no harm.
	Died
	// Lost: events were lost, or watching failed (Err). Anything may have
	// changed: look at the whole tree.
	Lost
)

// String returns the kind's name.
func (k Kind) String() string { return [...]string{"none", "born", "died", "lost"}[k] }

// Event is one change of the cgroup tree.
type Event struct {
	Kind Kind
	Path string // of the cgroup below the mount, as in a policy; empty for Lost
	Err  error  // for Lost: why watching failed, if it did and goes on failing
}

// backlog is how many events wait for a slow reader before they become Lost:
// about as many as take it as long as a look at the whole tree.
const backlog = 4096

// Cgroups watches the cgroup tree for what a policy names: members, whether
// they exist or not, directories in which a template's instances can appear,
// and, for units, all directories. It has one inotify watch for each directory
// that it follows. Its methods are safe for concurrent use.
type Cgroups struct {
	tree    *cgroup.Tree
	inotify *inotify
	events  chan Event
	ended   chan struct{} // Close was called
	closed  chan struct{} // the reading goroutine has ended
	close   func() error

	mu      sync.Mutex
	root    cgroup.Interest
	watches map[int]*watched // by watch descriptor
	paths   map[string]int   // watch descriptor of a path
	round   int
	stop    bool
}

// watched is a directory with a watch.
type watched struct {
	path     string
	interest cgroup.Interest
	round    int // of Watch in which it was found last
}

// OpenCgroups returns a watcher of a tree that watches nothing yet.
func OpenCgroups(tree *cgroup.Tree) (*Cgroups, error) {
	i, err := openInotify()
	if err != nil {
		return nil, fmt.Errorf("watch cgroups: %w", err)
	}
	c := &Cgroups{
		tree:    tree,
		inotify: i,
		events:  make(chan Event, backlog),
		ended:   make(chan struct{}),
		closed:  make(chan struct{}),
		root:    cgroup.NewInterest(&model.Policy{}),
		watches: map[int]*watched{},
		paths:   map[string]int{},
	}
	c.close = sync.OnceValue(func() error {
		c.mu.Lock()
		c.stop = true
		c.mu.Unlock()
		close(c.ended)
		c.inotify.ring()
		<-c.closed
		return c.inotify.close()
	})
	go c.loop()
	return c, nil
}

// Events returns the channel of events, which Close closes and nothing else. Events that
// nobody receives are kept up to a bound, beyond which they become one Lost.
func (c *Cgroups) Events() <-chan Event { return c.events }

// Close ends the watching and closes the channel of events.
func (c *Cgroups) Close() error { return c.close() }

// Watch makes a policy the one that is watched for, instead of the one
// before. Look at the tree ([cgroup.Tree.Resolve]) after it returns, not
// before: what exists already is not reported. The error says what to do about
// too few inotify watches; those that could be had are kept.
func (c *Cgroups) Watch(p *model.Policy) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop {
		return fmt.Errorf("watch cgroups: %w", fs.ErrClosed)
	}
	c.root = cgroup.NewInterest(p)
	return c.renew()
}

// renew follows the tree from its root and ends the watches that it did not
// come by.
func (c *Cgroups) renew() error {
	c.round++
	if err := c.follow("/", c.root, nil); err != nil {
		return fmt.Errorf("watch cgroups: %w", err)
	}
	for wd, w := range c.watches {
		if w.round != c.round {
			c.end(wd)
			delete(c.watches, wd)
		}
	}
	return nil
}

// follow watches a directory and those below it that are of interest. The
// watch comes before the look at what is there, so nothing slips through
// between them. report, if not nil, is called for what is there and matters.
func (c *Cgroups) follow(dir string, interest cgroup.Interest, report func(string)) error {
	if !interest.Below() || cgroup.Level(dir) >= cgroup.MaxLevel {
		return nil
	}
	children, err := c.listen(dir, interest)
	if errors.Is(err, fs.ErrNotExist) && dir != "/" || errors.Is(err, unix.ENAMETOOLONG) {
		return nil // gone since it was listed, or nested beyond reason by whom it was delegated to
	}
	if err != nil {
		return err
	}
	var failed error
	for _, child := range children {
		interest := interest.Child(path.Base(child.Path))
		if report != nil && interest.Here() {
			report(child.Path)
		}
		if err := c.follow(child.Path, interest, report); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// listen watches a directory and returns what was in it afterwards.
func (c *Cgroups) listen(dir string, interest cgroup.Interest) ([]cgroup.Match, error) {
	add := func() (int, error) { return c.inotify.add(c.tree.Dir(dir), unix.IN_CREATE|unix.IN_DELETE) }
	wd, err := add()
	if err != nil {
		return nil, err
	}
	for {
		if old, ok := c.paths[dir]; ok && old != wd { // of a directory that had the path before
			c.end(old)
		}
		c.watches[wd], c.paths[dir] = &watched{dir, interest, c.round}, wd
		children, err := c.tree.Children(dir)
		if err != nil {
			return nil, err
		}
		// The directory that is listed must be the one that is watched: if it
		// was made anew in between, the same watch is not returned again.
		again, err := add()
		if err != nil || again == wd {
			return children, err
		}
		wd = again
	}
}

// end ends a watch. What it has seen before is still to be read: the last
// event of a watch, IN_IGNORED, makes handle forget it.
func (c *Cgroups) end(wd int) {
	if w := c.watches[wd]; w != nil && c.paths[w.path] == wd {
		delete(c.paths, w.path)
	}
	c.inotify.remove(wd)
}

// loop reads events until Close.
func (c *Cgroups) loop() {
	defer close(c.closed)
	defer close(c.events)
	buf := make([]byte, 64<<10)
	for {
		woken, err := c.inotify.wait(-1, -1)
		if err == nil && woken.events {
			c.mu.Lock()
			err = c.inotify.read(buf, c.handle)
			c.mu.Unlock()
		}
		if err != nil {
			c.send(Event{Kind: Lost, Err: fmt.Errorf("watch cgroups: %w", err)})
			<-c.ended
			return
		}
		if woken.alarm { // only Close rings
			return
		}
	}
}

// handle takes one event of inotify.
func (c *Cgroups) handle(n notice) {
	if n.mask&unix.IN_Q_OVERFLOW != 0 {
		c.lose(c.renew())
		return
	}
	w := c.watches[n.watch]
	switch {
	case w == nil: // of a watch that has ended
	case n.mask&unix.IN_IGNORED != 0:
		c.end(n.watch)
		delete(c.watches, n.watch)
	case n.mask&unix.IN_ISDIR == 0: // the kernel's files
	case n.mask&unix.IN_CREATE != 0:
		c.born(w, n.name)
	case n.mask&unix.IN_DELETE != 0:
		c.died(w, n.name)
	}
}

// born reports a new directory before it is followed: following takes time.
func (c *Cgroups) born(parent *watched, name string) {
	child, interest := join(parent.path, name), parent.interest.Child(name)
	report := func(path string) { c.send(Event{Kind: Born, Path: path}) }
	if interest.Here() {
		report(child)
	}
	if err := c.follow(child, interest, report); err != nil {
		c.lose(fmt.Errorf("watch cgroups: %w", err))
	}
}

// died reports a directory that was removed, and ends its watch: kernfs does
// not do so by itself, and the watch would keep the directory's memory. But if
// the path is there again, its watch may be that of the new directory, whose
// birth is announced later in the queue.
func (c *Cgroups) died(parent *watched, name string) {
	child := join(parent.path, name)
	if wd, ok := c.paths[child]; ok {
		if _, err := c.tree.ID(child); err != nil {
			c.end(wd)
		}
	}
	if parent.interest.Child(name).Here() {
		c.send(Event{Kind: Died, Path: child})
	}
}

// send puts an event into the channel. If that is full, what is in it
// becomes one Lost: the reader is behind, and one look at everything is less
// work for it than many at single cgroups.
func (c *Cgroups) send(e Event) {
	select {
	case c.events <- e:
	default:
		c.lose(e.Err)
	}
}

// lose replaces the events that wait by one Lost.
func (c *Cgroups) lose(err error) {
	for {
		select {
		case e := <-c.events:
			if err == nil {
				err = e.Err
			}
		default:
			c.events <- Event{Kind: Lost, Err: err} // has room: nobody else sends
			return
		}
	}
}

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}
