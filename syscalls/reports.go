package syscalls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Outcome is what became of a call.
type Outcome uint8

// The outcomes.
const (
	Refused Outcome = iota
	Audited         // would have been refused
	Logged          // allowed by a rule that logs
)

// Report is one decision of the programs.
type Report struct {
	// Time is CLOCK_BOOTTIME in nanoseconds.
	Time uint64
	// Count is how many decisions of this rule, socket namespace and outcome
	// there have been, this one included. A flood is counted and not reported.
	Count    uint64
	Netns    uint64 // cookie of the device namespace
	Cgroup   uint64 // id of the calling process's; 0: unknown, as PID and TID
	PID, TID uint32
	Identity uint32 // of the end that decided
	Peer     uint32 // of the other end, if Identified; 0: unmanaged
	// Local and Remote are the two ends as the deciding one sees them.
	Local, Remote Address
	Port          uint16 // bind and accept: local; connect: remote
	SourcePort    uint16 // of the calling socket, if it has one already
	Error, Rule   uint16 // Rule 0 is the default
	Hook          uint8  // 0 bind, 1 connect, 2 accept
	Outcome       Outcome
	Protocol      Protocols // one
	Identified    uint8
	Family6       uint8
	_             [3]uint8
	Tag           uint32 // of the rule, see Tally
	_             uint32
	Command       [16]byte // comm of the calling thread
}

// Addr converts an address back; IPv4-mapped ones become IPv4.
func (a Address) Addr() netip.Addr {
	var b [16]byte
	for i, w := range a {
		binary.BigEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

// Tally counts the decisions of one rule in one socket namespace.
type Tally struct {
	Identity uint32
	Tag      uint32 // Entry.Tag of the rule; 0: the default
	Hook     uint8  // 0 bind, 1 connect, 2 accept
	Outcome  Outcome
	Count    uint64
}

// Tallies reads what was decided since the programs were installed. Rules of
// former policies are among them.
func (t *Tier) Tallies() ([]Tally, error) { return tallies(t.maps["decisions"]) }

func tallies(m *ebpf.Map) ([]Tally, error) {
	var key struct {
		Identity, Tag uint32
		Hook, Outcome uint8
		_             uint16
	}
	var value struct{ Count, Window, Reported uint64 }
	list := []Tally{}
	all := m.Iterate()
	for all.Next(&key, &value) {
		list = append(list, Tally{key.Identity, key.Tag, key.Hook, Outcome(key.Outcome), value.Count})
	}
	return list, all.Err()
}

// Reports reads what the programs of an instance report. There may be one
// reader at a time, and one goroutine that calls Read; the other methods are
// safe for concurrent use.
type Reports struct {
	mu     sync.Mutex // of counts and closed
	closed bool
	pin    string
	id     ebpf.MapID
	m      *ebpf.Map
	counts *ebpf.Map
	ring   *ringbuf.Reader
	record ringbuf.Record
}

// OpenReports opens the reports of an instance. errors.Is(err,
// fs.ErrNotExist) if its programs are not installed.
func OpenReports(instance uint64) (*Reports, error) {
	dir, err := dirOf(instance)
	if err != nil {
		return nil, err
	}
	r := &Reports{pin: filepath.Join(dir, "map_reports")}
	if r.m, err = ebpf.LoadPinnedMap(r.pin, nil); err != nil {
		return nil, fmt.Errorf("open pinned map reports: %w", err)
	}
	if r.counts, err = ebpf.LoadPinnedMap(filepath.Join(dir, "map_decisions"), nil); err == nil {
		if r.id, err = mapID(r.m); err == nil {
			r.ring, err = ringbuf.NewReader(r.m)
		}
	}
	if err != nil {
		r.m.Close()
		r.counts.Close()
		return nil, fmt.Errorf("read reports: %w", err)
	}
	return r, nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

// Current reports whether the programs still write to what is read here: they
// do not once the pins were removed and the programs installed anew.
func (r *Reports) Current() bool {
	m, err := ebpf.LoadPinnedMap(r.pin, nil)
	if err != nil {
		return false
	}
	defer m.Close()
	id, err := mapID(m)
	return err == nil && id == r.id
}

// Read waits for the next report. It returns os.ErrClosed, through errors.Is,
// after Close, and os.ErrDeadlineExceeded after the deadline.
func (r *Reports) Read() (Report, error) {
	var report Report
	if err := r.ring.ReadInto(&r.record); err != nil {
		if errors.Is(err, ringbuf.ErrClosed) {
			err = os.ErrClosed
		}
		return report, err
	}
	err := binary.Read(bytes.NewReader(r.record.RawSample), binary.NativeEndian, &report)
	return report, err
}

// Tallies is [Tier.Tallies]; os.ErrClosed after Close.
func (r *Reports) Tallies() ([]Tally, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, os.ErrClosed
	}
	return tallies(r.counts)
}

// SetDeadline bounds how long Read waits; the zero time takes the bound away.
func (r *Reports) SetDeadline(t time.Time) { r.ring.SetDeadline(t) }

// Close ends the reading.
func (r *Reports) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return errors.Join(r.ring.Close(), r.m.Close(), r.counts.Close())
}
