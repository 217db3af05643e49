package decisions

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nflog"
	"github.com/sockns/sockns/syscalls"
)

const (
	// hold is how long a packet waits for what else is told of it.
	hold = 150 * time.Millisecond
	// window is how long decisions that are alike are counted and not told.
	window = time.Second
	// most bounds each of the things that are remembered.
	most = 1 << 12
)

// Stream turns what the tiers tell into events. It is for one goroutine, which
// gives it the time with each call. What comes out is in order of time, but
// for packets, which are held a little.
type Stream struct {
	emit    func(events.Event)
	view    *View
	before  *View // the view until since
	since   time.Time
	held    []raw // packets, oldest first
	calls   map[call]*echoes
	alike   map[likeness]*counted
	ledgers map[string]*ledger // by device namespace
	tallies map[tally]*account
}

// New returns a stream that hands its events to emit.
func New(emit func(events.Event)) *Stream {
	return &Stream{emit: emit, calls: make(map[call]*echoes), alike: make(map[likeness]*counted),
		ledgers: make(map[string]*ledger)}
}

// Use has decisions from now on understood by another policy.
func (s *Stream) Use(v *View, now time.Time) { s.before, s.view, s.since = s.view, v, now }

// at returns the view of a time.
func (s *Stream) at(t time.Time) *View {
	if s.before != nil && t.Before(s.since) {
		return s.before
	}
	return s.view
}

// call is what a call and its packets have in common.
type call struct {
	device, namespace string
	hook              model.Hook
	rule              int
	outcome           compiler.Outcome
	protocol          model.Protocol
	at                netip.AddrPort // where to; of a bind what was bound
}

// likeness is what decisions that are told together have in common.
type likeness struct {
	call
	oneOf, peer string
	behind      bool
	tier        events.Tier
	source      netip.Addr // none of a bind
	errno       model.Errno
	pid         uint32
}

// counted is one event that was told and how often it happened since.
type counted struct {
	event events.Event
	until time.Time
	more  uint64
	first time.Time // of more
}

// tally is a row of syscalls.Tally.
type tally struct {
	identity, tag uint32
	hook          model.Hook
	outcome       compiler.Outcome
}

// Call takes the report of a call, decided at a time. process is its process,
// nil if it is not known.
func (s *Stream) Call(r *syscalls.Report, process *events.Actor, decided, now time.Time) {
	v := s.at(decided)
	if v == nil {
		return
	}
	c, ok := fromCall(r, v.cookies[r.Netns], process, decided)
	if !ok {
		return
	}
	e := s.event(v, &c)
	told := s.heardCall(tally{c.identity, r.Tag, c.hook, c.outcome}, r.Count, decided)
	if !told {
		s.called(v, &c, 1)
	}
	if c.outcome != compiler.Refused { // those that are refused send no packet
		if len(s.calls) >= most {
			clear(s.calls)
		}
		k := callOf(&e, &c)
		if s.calls[k] == nil {
			s.calls[k] = newEchoes()
		}
		s.calls[k].called(now)
	}
	if !told {
		s.tell(e, &c, now)
	}
}

// Packet takes a logged packet of a device namespace.
func (s *Stream) Packet(device string, p *nflog.Packet, now time.Time) {
	if p.Prefix == compiler.PeerPrefix {
		for i := len(s.held) - 1; i >= 0; i-- { // it is among the last
			if c := &s.held[i]; c.device == device && c.needsPeer() && !c.paired && c.packet == string(p.Payload) {
				c.setOther(p.Mark)
				return
			}
		}
		return
	}
	if c, ok := fromPacket(p, device, now); ok {
		s.heard(s.at(now), &c)
		s.held = append(s.held, c)
	}
	if len(s.held) > most {
		s.release(now, len(s.held)/2)
	}
}

// Tick tells what has been held long enough. It returns when to be called
// again; the zero time if nothing waits.
func (s *Stream) Tick(now time.Time) time.Time {
	due := 0
	for due < len(s.held) && now.Sub(s.held[due].time) >= hold {
		due++
	}
	for due > 0 && due < len(s.held) && s.held[due].packet == s.held[due-1].packet {
		due++ // what is told of one packet is told together
	}
	s.release(now, due)
	for k, c := range s.alike {
		if now.Before(c.until) {
			continue
		}
		if c.more == 0 {
			delete(s.alike, k)
			continue
		}
		s.flush(c)
		c.until = now.Add(window)
	}
	for k, e := range s.calls {
		if e.over(now) {
			delete(s.calls, k)
		}
	}
	switch {
	case len(s.held) > 0:
		return s.held[0].time.Add(hold)
	case len(s.alike) > 0 || len(s.calls) > 0:
		return now.Add(window / 4)
	}
	return time.Time{}
}

// release tells of the first n packets that are held.
func (s *Stream) release(now time.Time, n int) {
	if n == 0 {
		return
	}
	due := slices.Clone(s.held[:n])
	s.held = slices.Delete(s.held, 0, n)
	events, first := make([]events.Event, n), make(map[packet]int)
	merged := func(i int) bool { // enforcing would have refused the packet once
		c := &due[i]
		if c.outcome != compiler.Audited {
			return false
		}
		_, _, alone := s.at(c.time).rule(events[i].Namespace, c.hook, c.rule)
		return !alone
	}
	known := make(map[packet]ends)
	for i := range due {
		c := &due[i]
		if s.at(c.time) == nil {
			continue
		}
		events[i] = s.event(s.at(c.time), c)
		p := packet{c.device, c.packet}
		known[p] = known[p].with(c.end, events[i].Namespace)
		if merged(i) {
			if rank, there := first[p]; !there || c.rank() < rank {
				first[p] = c.rank()
			}
		}
	}
	for i := range due {
		c, d := &due[i], events[i].Decided
		if d == nil {
			continue
		}
		p := packet{c.device, c.packet}
		d.Behind = merged(i) && c.rank() > first[p]
		if d.Peer == "" && c.near {
			d.Peer = known[p].other(c.end)
		}
		k := callOf(&events[i], c)
		if e := s.calls[k]; e != nil && c.outcome != compiler.Refused && (c.near || c.end == compiler.EndOut) && e.heard(c.source, now) {
			s.echoed(s.at(c.time), c)
			continue
		}
		s.tell(events[i], c, now)
	}
}

// packet is what is told of one packet.
type packet struct{ device, headers string }

// ends are the socket namespaces of a packet's ends, as far as they told
// themselves: the mark of a packet that lives on is not ours to write.
type ends struct{ from, to string }

func (e ends) with(at compiler.End, namespace string) ends {
	if at == compiler.EndTo {
		e.to = namespace
	} else {
		e.from = namespace
	}
	return e
}

// other returns the end that is not at.
func (e ends) other(at compiler.End) string {
	if at == compiler.EndTo {
		return e.from
	}
	return e.to
}

// event says what a raw decision means.
func (s *Stream) event(v *View, c *raw) events.Event {
	d := &events.Decided{
		Action: model.Deny, Mode: model.Enforce, Tier: events.Syscalls, Hook: c.hook.String(), Protocol: c.protocol,
		Source: c.source, Destination: c.dest, Rule: c.rule, Errno: c.errno, Process: c.process, UID: c.uid, Count: 1,
	}
	switch c.outcome {
	case compiler.Audited:
		d.Mode = model.Audit
	case compiler.Allowed:
		d.Action = model.Allow
	}
	if c.packet != "" {
		d.Tier = events.Packets
	}
	name := c.name
	if name == "" {
		name, _ = v.name(c.device, c.identity)
	}
	about := name
	if c.shared {
		if names := v.sharing(c.device, name); len(names) > 1 {
			d.OneOf, name = names, ""
		} else if len(names) == 1 {
			name = names[0]
		}
	}
	if c.hasPeer {
		d.Peer = v.peer(c.device, c.peer)
	}
	d.Text, d.At, _ = v.rule(about, c.hook, c.rule)
	return events.Event{Time: c.time, Kind: events.Decision, Device: c.device, Namespace: name, Decided: d}
}

func callOf(e *events.Event, c *raw) call {
	namespace, _, _ := strings.Cut(e.Namespace, "/") // packets that live on tell the template
	at := c.dest
	if c.hook == model.Bind {
		at = c.source
	}
	return call{c.device, namespace, c.hook, c.rule, c.outcome, c.protocol, at}
}

// tell emits a decision, or counts it if one like it was told just now.
func (s *Stream) tell(e events.Event, c *raw, now time.Time) {
	d := e.Decided
	k := likeness{call: callOf(&e, c), oneOf: strings.Join(d.OneOf, " "), peer: d.Peer, behind: d.Behind, tier: d.Tier, errno: d.Errno}
	k.namespace = e.Namespace
	if c.hook != model.Bind {
		k.source = d.Source.Addr()
	}
	if d.Process != nil {
		k.pid = d.Process.PID
	}
	if like := s.alike[k]; like != nil {
		if like.more == 0 {
			like.first = e.Time
		}
		like.more++
		like.event = e
		return
	}
	if len(s.alike) >= most {
		for k, c := range s.alike {
			if c.more > 0 {
				s.flush(c)
			}
			delete(s.alike, k)
		}
	}
	s.publish(e)
	s.alike[k] = &counted{event: e, until: now.Add(window)}
}

// flush tells how often something happened again.
func (s *Stream) flush(c *counted) {
	e := c.event
	d := *e.Decided
	d.Count, d.Since = c.more, c.first
	e.Decided = &d
	s.publish(e)
	c.more = 0
}

func (s *Stream) publish(e events.Event) {
	e.Message = e.Decided.String()
	s.emit(e)
}
