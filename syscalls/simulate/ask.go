package simulate

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/syscalls"
)

// question is what a list is asked.
type question struct {
	identity     uint32 // of the end that is asked
	them, source uint32 // the other end's
	protocol     syscalls.Protocols
	port         uint16
	local, peer  syscalls.Address
	localKnown   bool // else the kernel has yet to pick it
	own          bool // the local address is the namespace's own
	identified   bool // them and source are known
	ranges       []syscalls.Range
}

// verdict is what a list says. Its action is [syscalls.Pass] where the list
// can't tell.
type verdict struct {
	action    syscalls.Action
	errno     unix.Errno
	isDefault bool
}

// ask walks the entries of a list up to the first verdict that holds.
func (q *question) ask(list []syscalls.Entry) verdict {
	var got, maybe syscalls.Need
	for _, e := range list {
		if e.Protocols&q.protocol == 0 {
			continue
		}
		matters := (got|maybe)&e.Needs == e.Needs
		if e.Kind != syscalls.Verdict && e.Kind != syscalls.Default {
			if matters {
				has, may := q.match(e)
				got, maybe = got|has, maybe|may
			}
			continue
		}
		sure := got&e.Needs == e.Needs
		got, maybe = 0, 0
		switch {
		case !matters || !q.here(e):
		case !sure:
			return verdict{action: syscalls.Pass}
		case e.Action&syscalls.Audit == 0:
			return verdict{e.Action &^ syscalls.Logs, unix.Errno(e.Error), e.Kind == syscalls.Default}
		}
	}
	panic("a list without an end")
}

// here reports whether what a verdict says itself matches.
func (q *question) here(e syscalls.Entry) bool {
	return (e.Here&syscalls.HerePort == 0 || q.portWithin(e)) &&
		(e.Here&syscalls.HereOwn == 0 || !q.localKnown || q.own) &&
		(e.Peer == 0 || q.peerOf(e, e.Peer))
}

// match returns the dimension in which an entry matches, or may match once the
// kernel has picked the local address.
func (q *question) match(e syscalls.Entry) (has, may syscalls.Need) {
	matched, dimension := false, syscalls.NeedPeer
	switch e.Kind {
	case syscalls.Port:
		matched, dimension = q.portWithin(e), syscalls.NeedPort
		if e.Table.Count > 0 {
			matched = inTable(q.ranges, e.Table, syscalls.Address{3: uint32(q.port)})
		}
	case syscalls.LocalAddress:
		if !q.localKnown {
			return 0, syscalls.NeedLocal
		}
		matched, dimension = q.within(q.local, e), syscalls.NeedLocal
	default:
		matched = q.peerOf(e, e.Kind)
	}
	if !matched {
		return 0, 0
	}
	return dimension, 0
}

func (q *question) portWithin(e syscalls.Entry) bool {
	return e.PortFirst <= q.port && q.port <= e.PortLast
}

// peerOf reports whether the peer is of a kind that an entry names.
func (q *question) peerOf(e syscalls.Entry, kind syscalls.Kind) bool {
	switch kind {
	case syscalls.PeerAddress:
		return q.within(q.peer, e)
	case syscalls.PeerRemoteAddress:
		return !q.identified && q.within(q.peer, e)
	case syscalls.PeerSource:
		if e.Table.Count > 0 {
			return q.identified && inTable(q.ranges, e.Table, syscalls.Address{3: q.source})
		}
		return q.identified && q.source == e.Source
	case syscalls.PeerSelf:
		return q.identified && q.them == q.identity
	case syscalls.PeerUnmanaged:
		return q.identified && q.them == 0
	}
	return false
}

func (q *question) within(a syscalls.Address, e syscalls.Entry) bool {
	if e.Table.Count > 0 {
		return inTable(q.ranges, e.Table, a)
	}
	return syscalls.Range{First: e.First, Last: e.Last}.Contains(a)
}

// inTable searches sorted ranges that do not overlap, as they have to be.
func inTable(ranges []syscalls.Range, table syscalls.Span, a syscalls.Address) bool {
	_, found := slices.BinarySearchFunc(ranges[table.First:table.First+table.Count], a, func(r syscalls.Range, a syscalls.Address) int {
		if r.Contains(a) {
			return 0
		}
		return slices.Compare(r.First[:], a[:])
	})
	return found
}
