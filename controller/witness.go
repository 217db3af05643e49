package controller

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/decisions"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nflog"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// witness tells of what the kernel decides: it reads the reports of the
// syscall tier and the packets that the tables log, in goroutines of its own.
// follow, joined and close are for the goroutine of [Reconciler.Run].
type witness struct {
	tell    func(events.Event)
	reports *syscalls.Reports     // nil: none are read
	logs    map[string]*deviceLog // by device namespace
	heard   chan func(*testimony) // what the readers and Run hand over
	done    chan struct{}         // closed by close
	readers sync.WaitGroup
	view    *decisions.View
	recent  *recent
	// refusals are summed by kind.
	refusals *refusals
}

// deviceLog is the listener of one device namespace.
type deviceLog struct {
	conn  *nflog.Conn
	table *nft.Conn // reads what is counted, apart from the reconciler
	ns    string    // identity of the device namespace
}

func (l *deviceLog) close() {
	l.conn.Close()
	l.table.Close()
}

// testimony is what the goroutine that tells has.
type testimony struct {
	stream *decisions.Stream
	// counters are what is looked at for what went untold, by device namespace;
	// "" is the syscall tier.
	counters map[string]*counter
	looking  bool // somebody reads counters
}

// counter is where the kernel counts decisions.
type counter struct {
	log     *deviceLog        // of a device namespace
	reports *syscalls.Reports // of the syscall tier
	active  bool              // there may be news since it was looked at
}

func newWitness(tell func(events.Event)) *witness {
	w := &witness{tell: tell, logs: make(map[string]*deviceLog), heard: make(chan func(*testimony), 256), done: make(chan struct{}), recent: newRecent(), refusals: newRefusals()}
	w.readers.Add(1)
	go w.run()
	return w
}

// follow has what is decided from now on understood by the view of a plan that
// is in force, and listens where it is decided.
func (w *witness) follow(v *decisions.View, host *Host, plan *Plan) {
	other := w.view == nil || !w.view.Same(v)
	w.view = v
	now := time.Now()
	w.hand(func(t *testimony) { t.stream.Use(v, now) })
	w.followCalls(host)
	for name, l := range w.logs {
		if d := host.devices[name]; d == nil || identityKey(d) != l.ns {
			l.close()
			delete(w.logs, name)
			w.hand(func(t *testimony) { delete(t.counters, name); t.stream.Forget(name) })
		}
	}
	for _, planned := range plan.Devices {
		name, d := planned.Name, host.devices[planned.Name]
		if d == nil {
			continue
		}
		l := w.logs[name]
		if l != nil && !other {
			continue
		}
		began := compiler.TellingsOf(planned.New)
		w.hand(func(t *testimony) { t.stream.Begin(name, began) })
		if l == nil {
			w.hear(name, d)
		}
	}
}

// edited is follow for a plan of the parts of tables that differ.
func (w *witness) edited(v *decisions.View, plan *Plan) {
	w.view = v
	now := time.Now()
	w.hand(func(t *testimony) { t.stream.Use(v, now) })
	for _, planned := range plan.Devices {
		part, whose := compiler.TellingsOf(planned.New), compiler.CountedIn(planned.Old, planned.New)
		w.hand(func(t *testimony) { t.stream.Edit(planned.Name, part, whose) })
	}
}

// hear begins to listen in a device namespace.
func (w *witness) hear(name string, d *hostDevice) {
	table, err := nft.Open(d.ns.NetNS())
	if err != nil {
		w.degraded(name, "decisions about packets are not told", err)
		return
	}
	conn, err := nflog.Open(d.ns.NetNS(), compiler.LogGroup)
	if err != nil {
		table.Close()
		w.degraded(name, "decisions about packets are not told", err)
		return
	}
	l := &deviceLog{conn, table, identityKey(d)}
	w.logs[name] = l
	w.hand(func(t *testimony) { t.counters[name] = &counter{log: l, active: true} })
	w.readers.Add(1)
	go w.listen(name, l)
}

func (w *witness) degraded(device, what string, err error) {
	w.tell(events.Event{Time: time.Now(), Kind: events.Degraded, Device: device, Message: what, Error: err.Error()})
}

// followCalls reads the reports of the programs that run now.
func (w *witness) followCalls(host *Host) {
	if w.reports != nil && w.reports.Current() {
		return
	}
	if w.reports != nil {
		w.reports.Close()
		w.reports = nil
	}
	reports, err := syscalls.OpenReports(host.Instance())
	if errors.Is(err, fs.ErrNotExist) { // packets alone
		w.hand(func(t *testimony) {
			delete(t.counters, "")
			t.stream.BeginCalls(nil)
		})
		return
	}
	if err != nil {
		w.degraded("", "decisions about calls are not told", err)
		return
	}
	began, err := reports.Tallies()
	if err != nil {
		reports.Close()
		w.degraded("", "decisions about calls are not told", err)
		return
	}
	w.reports = reports
	w.hand(func(t *testimony) {
		t.stream.BeginCalls(began)
		t.counters[""] = &counter{reports: reports, active: true}
	})
	w.readers.Add(1)
	go w.read(reports, host.Cgroups)
}

// joined tells of an instance of a template that came.
func (w *witness) joined(device, name string) {
	if w.view != nil && isInstance(name) {
		w.view.Join(device, name)
	}
}

func (w *witness) close() {
	close(w.done)
	if w.reports != nil {
		w.reports.Close()
	}
	for _, l := range w.logs {
		l.close()
	}
	w.readers.Wait()
}

// hand gives work to the goroutine that tells. Readers wait for it: what they
// do not read the kernel drops, and counts.
func (w *witness) hand(f func(*testimony)) {
	select {
	case w.heard <- f:
	case <-w.done:
	}
}

// read hands over the reports of calls until they are closed.
func (w *witness) read(reports *syscalls.Reports, tree *cgroup.Tree) {
	defer w.readers.Done()
	for {
		report, err := reports.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			w.degraded("", "decisions about calls are not told any more", err)
			return
		}
		var process *events.Actor
		if report.PID != 0 {
			command, _, _ := strings.Cut(string(report.Command[:]), "\x00")
			process = &events.Actor{PID: report.PID, Process: command}
			if dir, err := tree.Path(report.Cgroup); err == nil {
				process.Cgroup, process.Unit = dir, unitOf(dir)
			} else {
				locate(process) // at once: it may end soon
			}
		}
		decided := bootTime(report.Time)
		w.hand(func(t *testimony) {
			t.news("")
			t.stream.Call(&report, process, decided, time.Now())
		})
	}
}

// bootTime returns the time of a CLOCK_BOOTTIME in nanoseconds.
func bootTime(ns uint64) time.Time {
	return time.Now().Add(time.Duration(ns) - sinceBoot())
}

// listen hands over the packets that a device namespace logs until it is closed.
func (w *witness) listen(device string, l *deviceLog) {
	defer w.readers.Done()
	for {
		packet, err := l.conn.Receive()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			w.degraded(device, "decisions about packets are not told any more", err)
			return
		}
		w.hand(func(t *testimony) {
			t.news(device)
			t.stream.Packet(device, &packet, time.Now())
		})
	}
}

// news says that something was decided, of which more may have been counted.
func (t *testimony) news(where string) {
	if c := t.counters[where]; c != nil {
		c.active = true
	}
}

const (
	// lookInterval is how often what is held is looked at, while anything is.
	lookInterval = 50 * time.Millisecond
	// countInterval is how often counters are read while anything is decided,
	// countShare bounds the time that it takes where reading takes long.
	countInterval = 2 * time.Second
	countShare    = 20
)

// run tells, one thing after another.
func (w *witness) run() {
	defer w.readers.Done()
	t := &testimony{counters: make(map[string]*counter), stream: decisions.New(func(e events.Event) {
		w.recent.keep(e)
		w.refusals.keep(e)
		w.tell(e)
	})}
	look, count := time.NewTimer(0), time.NewTimer(countInterval)
	defer look.Stop()
	defer count.Stop()
	looking, counting := true, true
	for {
		select {
		case f := <-w.heard:
			f(t)
			if !looking {
				looking = true
				look.Reset(lookInterval)
			}
			if !counting && !t.looking {
				counting = true
				count.Reset(countInterval)
			}
		case <-look.C:
			if looking = !t.stream.Tick(time.Now()).IsZero(); looking {
				look.Reset(lookInterval)
			}
		case <-count.C:
			counting = false
			w.look(t)
		case <-w.done:
			return
		}
	}
}

// look has the counters read where something was decided, in a goroutine of
// its own, and what went untold told. Run calls it again if there was any.
func (w *witness) look(t *testimony) {
	due := make(map[string]*counter)
	for where, c := range t.counters {
		if c.active {
			c.active = false
			due[where] = c
		}
	}
	if len(due) == 0 {
		return
	}
	t.looking = true
	w.readers.Add(1)
	go func() {
		defer w.readers.Done()
		began := time.Now()
		tellings, tallies := make(map[string]*compiler.Tellings), []syscalls.Tally(nil)
		failed := make(map[string]error)
		for where, c := range due {
			if c.log == nil {
				tallies, _ = c.reports.Tallies() // gone: others follow
				continue
			}
			if table, err := c.log.table.Counts(compiler.TableName, false, compiler.CountingSet); err == nil {
				tellings[where] = compiler.TellingsOf(table)
			} else if !errors.Is(err, fs.ErrNotExist) { // somebody removed it: the reconciler brings it back
				failed[where] = err
			}
		}
		wait := max(decisions.Settle, countShare*time.Since(began)-countInterval)
		select {
		case <-w.done:
			return
		case <-time.After(wait):
		}
		w.hand(func(t *testimony) {
			t.looking = false
			now := time.Now()
			for where, err := range failed {
				if t.counters[where] == due[where] { // else it was closed
					w.degraded(where, "what is decided is told in part", err)
				}
			}
			// Calls come first: packets are their echoes.
			if c := due[""]; c != nil && t.counters[""] == c && tallies != nil && t.stream.Tallied(tallies, now) {
				c.active = true
			}
			for where, f := range tellings {
				if c := due[where]; t.counters[where] == c && t.stream.Counted(where, f, now) { // else it is another one now
					c.active = true
				}
			}
		})
	}()
}
