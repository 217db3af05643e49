package controller

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/decisions"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nflog"
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
	conn *nflog.Conn
	ns   string // identity of the device namespace
}

// testimony is what the goroutine that tells has.
type testimony struct {
	stream *decisions.Stream
	// reports are those that are read; active says that some came since the
	// tallies were read, lost how many packets were since that was told.
	reports *syscalls.Reports
	active  bool
	lost    map[string]uint64
}

func newWitness(tell func(events.Event)) *witness {
	w := &witness{tell: tell, logs: make(map[string]*deviceLog), heard: make(chan func(*testimony), 256), done: make(chan struct{}), recent: newRecent(), refusals: newRefusals()}
	w.readers.Add(1)
	go w.run()
	return w
}

// follow has what is decided from now on understood by a view, and listens
// where it is decided.
func (w *witness) follow(v *decisions.View, host *Host) {
	w.view = v
	now := time.Now()
	w.hand(func(t *testimony) { t.stream.Use(v, now) })
	w.followCalls(host)
	for name, l := range w.logs {
		if d := host.devices[name]; d == nil || identityKey(d) != l.ns {
			l.conn.Close()
			delete(w.logs, name)
		}
	}
	for name, d := range host.devices {
		if w.logs[name] != nil {
			continue
		}
		conn, err := nflog.Open(d.ns.NetNS(), compiler.LogGroup)
		if err != nil {
			w.degraded(name, "decisions about packets are not told", err)
			continue
		}
		l := &deviceLog{conn, identityKey(d)}
		w.logs[name] = l
		w.readers.Add(1)
		go w.listen(name, l)
	}
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
	if errors.Is(err, fs.ErrNotExist) {
		return // packets alone
	}
	if err != nil {
		w.degraded("", "decisions about calls are not told", err)
		return
	}
	w.reports = reports
	w.hand(func(t *testimony) { t.reports = reports })
	w.readers.Add(1)
	go w.read(reports)
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
		l.conn.Close()
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
func (w *witness) read(reports *syscalls.Reports) {
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
			locate(process) // at once: it may end soon
		}
		decided := bootTime(report.Time)
		w.hand(func(t *testimony) {
			t.active = true
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
	var lost uint64
	for {
		packet, err := l.conn.Receive()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			w.degraded(device, "decisions about packets are not told any more", err)
			return
		}
		more := l.conn.Lost() - lost
		lost += more
		w.hand(func(t *testimony) {
			t.lost[device] += more
			t.stream.Packet(device, &packet, time.Now())
		})
	}
}

const (
	// lookInterval is how often what is held is looked at, while anything is.
	lookInterval = 50 * time.Millisecond
	// tallyInterval is how often what was lost or not reported is told.
	tallyInterval = 2 * time.Second
)

// run tells, one thing after another.
func (w *witness) run() {
	defer w.readers.Done()
	t := &testimony{lost: make(map[string]uint64), stream: decisions.New(func(e events.Event) {
		w.recent.keep(e)
		w.refusals.keep(e)
		w.tell(e)
	})}
	look, tally := time.NewTimer(0), time.NewTimer(0)
	looking, tallying := true, true
	for {
		select {
		case f := <-w.heard:
			f(t)
			if !looking {
				looking = true
				look.Reset(lookInterval)
			}
			if !tallying {
				tallying = true
				tally.Reset(tallyInterval)
			}
		case <-look.C:
			if looking = !t.stream.Tick(time.Now()).IsZero(); looking {
				look.Reset(lookInterval)
			}
		case <-tally.C:
			tallying = false
			w.tellLost(t, time.Now())
		case <-w.done:
			look.Stop()
			tally.Stop()
			return
		}
	}
}

// tellLost tells of decisions that were made and not told one by one.
func (w *witness) tellLost(t *testimony, now time.Time) {
	for device, n := range t.lost {
		if n > 0 {
			w.tell(events.Event{Time: now, Kind: events.Lost, Device: device, Lost: n, Message: "decisions about packets were logged faster than they could be read"})
		}
		delete(t.lost, device)
	}
	if !t.active {
		return
	}
	t.active = false
	if list, err := t.reports.Tallies(); err == nil {
		t.stream.Tallied(list, now)
	}
}
