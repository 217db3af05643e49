package decisions

import (
	"net/netip"
	"time"
)

const (
	// echo is how long after a call, or its last packet, packets are taken for its own.
	echo = 2 * time.Second
	// manyCalls is how many of a kind within the echo are taken for a flood, of
	// which not all are reported.
	manyCalls = 30
)

// echoes are the calls of one kind whose packets live on and are logged too:
// each call begins one sender, whose packets are its echoes.
type echoes struct {
	last    time.Time
	calls   int // within an echo of each other
	waiting int // calls of which no packet came yet
	senders map[netip.AddrPort]time.Time
}

func newEchoes() *echoes { return &echoes{senders: make(map[netip.AddrPort]time.Time)} }

// called enters a call.
func (e *echoes) called(now time.Time) {
	if now.Sub(e.last) > echo {
		e.calls, e.waiting = 0, 0
	}
	e.last = now
	e.calls++
	e.waiting++
}

// heard enters a packet and reports whether it is an echo.
func (e *echoes) heard(source netip.AddrPort, now time.Time) bool {
	last, known := e.senders[source]
	switch {
	case known && now.Sub(last) <= echo:
	case now.Sub(e.last) <= echo && (e.waiting > 0 || e.calls >= manyCalls):
	default:
		return false
	}
	e.waiting = max(e.waiting-1, 0)
	if len(e.senders) >= most {
		clear(e.senders)
	}
	e.senders[source] = now
	return true
}

// over reports whether no echo is due any more.
func (e *echoes) over(now time.Time) bool {
	for source, t := range e.senders {
		if now.Sub(t) > echo {
			delete(e.senders, source)
		}
	}
	return len(e.senders) == 0 && now.Sub(e.last) > echo
}
