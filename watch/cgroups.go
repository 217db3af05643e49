package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
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
	take    func([]Event) bool
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

	// The reading goroutine's own:
	batch []Event  // of one read, in order
	lost  *Event   // instead of the batch
	fresh []string // new directories that are still to be followed
}

// watched is a directory with a watch.
type watched struct {
	path     string
	interest cgroup.Interest
	round    int // of Watch in which it was found last
}

// OpenCgroups returns a watcher of a tree that watches nothing yet. take, if not
// nil, is called with events as they are read, in the goroutine that reads: that
// spares the way through another one, which takes as long as a commit. What it
// returns false for goes to the channel, as all that is Lost. It must not keep
// the slice, and may be slow: the kernel keeps what comes meanwhile, within its
// bound (fs.inotify.max_queued_events).
func OpenCgroups(tree *cgroup.Tree, take func([]Event) bool) (*Cgroups, error) {
	i, err := openInotify()
	if err != nil {
		return nil, fmt.Errorf("watch cgroups: %w", err)
	}
	c := &Cgroups{
		tree:    tree,
		inotify: i,
		take:    take,
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
			err = c.read(buf)
		}
		if err != nil {
			c.lose(fmt.Errorf("watch cgroups: %w", err))
			c.deliver()
			<-c.ended
			return
		}
		if woken.alarm { // only Close rings
			return
		}
	}
}

// read takes what has arrived. New directories are reported before they are
// followed: following takes time.
func (c *Cgroups) read(buf []byte) error {
	c.mu.Lock()
	err := c.inotify.read(buf, c.handle)
	c.mu.Unlock()
	c.deliver()
	for len(c.fresh) > 0 {
		c.mu.Lock()
		for _, dir := range c.fresh {
			if err := c.follow(dir, c.interest(dir), func(path string) { c.report(Born, path) }); err != nil {
				c.lose(fmt.Errorf("watch cgroups: %w", err))
			}
		}
		c.fresh = c.fresh[:0]
		c.mu.Unlock()
		c.deliver()
	}
	return err
}

// interest returns what is wanted of a directory now.
func (c *Cgroups) interest(dir string) cgroup.Interest {
	i := c.root
	for name := range strings.SplitSeq(dir[1:], "/") {
		i = i.Child(name)
	}
	return i
}

// handle takes one event of inotify.
func (c *Cgroups) handle(n notice) {
	if n.mask&unix.IN_Q_OVERFLOW != 0 {
		c.fresh = c.fresh[:0]
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
		child, interest := join(w.path, n.name), w.interest.Child(n.name)
		if interest.Here() {
			c.report(Born, child)
		}
		if interest.Below() {
			c.fresh = append(c.fresh, child)
		}
	case n.mask&unix.IN_DELETE != 0:
		c.died(w, n.name)
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
		c.report(Died, child)
	}
}

// report adds an event to the batch.
func (c *Cgroups) report(k Kind, path string) {
	if c.lost == nil {
		c.batch = append(c.batch, Event{Kind: k, Path: path})
	}
}

// lose makes one Lost of the batch.
func (c *Cgroups) lose(err error) {
	if c.lost == nil {
		c.lost = &Event{Kind: Lost}
	}
	if c.lost.Err == nil {
		c.lost.Err = err
	}
}

// deliver hands the batch over. If the channel is full, what is in it becomes
// one Lost: the reader is behind, and one look at everything is less work for it
// than many at single cgroups.
func (c *Cgroups) deliver() {
	batch, lost := c.batch, c.lost
	c.batch, c.lost = c.batch[:0], nil
	if lost == nil && (len(batch) == 0 || c.take != nil && c.take(batch)) {
		return
	}
	for i := 0; lost == nil && i < len(batch); i++ {
		select {
		case c.events <- batch[i]:
		default:
			lost = &Event{Kind: Lost}
		}
	}
	for lost != nil {
		select {
		case e := <-c.events:
			if lost.Err == nil {
				lost.Err = e.Err
			}
		default:
			c.events <- *lost // has room: nobody else sends
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
