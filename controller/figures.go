package controller

import (
	"sync"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/nft"
)

// figures remembers what the rules of each device namespace had counted when
// its table was last read, so that a table that somebody removes comes back
// with its counts. It is safe for concurrent use.
type figures struct {
	mu      sync.Mutex
	devices map[string]deviceFigures // by name of the device namespace
}

type deviceFigures struct {
	ns   string // identity of the device namespace
	last *compiler.Figures
}

func newFigures() *figures { return &figures{devices: make(map[string]deviceFigures)} }

// note remembers the figures of a table that was read. One that is gone
// changes nothing.
func (f *figures) note(d *hostDevice, t *nft.Table) {
	if t == nil {
		return
	}
	last := compiler.FiguresOf(t)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices[d.name] = deviceFigures{identityKey(d), last}
}

// of returns what was remembered; nil if nothing was.
func (f *figures) of(d *hostDevice) *compiler.Figures {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.devices[d.name]; last.ns == identityKey(d) {
		return last.last
	}
	return nil
}

// carry has the counters of a table that is to replace another go on.
func (f *figures) carry(d *hostDevice, have, want *nft.Table) {
	compiler.Carry(have, want, f.of(d), time.Now())
	f.note(d, have)
}

// carryPart is carry for the parts of tables that differ.
func (f *figures) carryPart(d *hostDevice, have, want *nft.Table) {
	was := f.of(d)
	compiler.Carry(have, want, was, time.Now())
	if was == nil {
		f.note(d, have)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices[d.name] = deviceFigures{identityKey(d), was.With(have)}
}

// ShareFigures has two hosts know what either read of counters last.
func (h *Host) ShareFigures(with *Host) { h.figures = with.figures }
