package simulate

import (
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
		if e.Kind != syscalls.Verdict && e.Kind != syscalls.Default {
			has, may := q.match(e)
			got, maybe = got|has, maybe|may
			continue
		}
		holds, might := got&e.Needs == e.Needs, (got|maybe)&e.Needs == e.Needs
		got, maybe = 0, 0
		switch {
		case e.Protocols&q.protocol == 0 || !might:
		case !holds:
			return verdict{action: syscalls.Pass}
		case e.Action&syscalls.Audit == 0:
			return verdict{e.Action &^ syscalls.Logs, unix.Errno(e.Error), e.Kind == syscalls.Default}
		}
	}
	panic("a list without an end")
}

// match returns the dimension in which an entry matches, or may match once the
// kernel has picked the local address.
func (q *question) match(e syscalls.Entry) (has, may syscalls.Need) {
	if e.Kind == syscalls.LocalAddress && !q.localKnown {
		return 0, syscalls.NeedLocal
	}
	matched, dimension := false, syscalls.NeedPeer
	switch e.Kind {
	case syscalls.Port:
		matched, dimension = e.PortFirst <= q.port && q.port <= e.PortLast, syscalls.NeedPort
	case syscalls.LocalAny:
		matched, dimension = true, syscalls.NeedLocal
	case syscalls.LocalOwn:
		matched, dimension = !q.localKnown || q.own, syscalls.NeedLocal
	case syscalls.LocalAddress:
		matched, dimension = within(q.local, e), syscalls.NeedLocal
	case syscalls.PeerAddress:
		matched = within(q.peer, e)
	case syscalls.PeerRemoteAddress:
		matched = !q.identified && within(q.peer, e)
	case syscalls.PeerSource:
		matched = q.identified && q.source == e.Source
	case syscalls.PeerSelf:
		matched = q.identified && q.them == q.identity
	case syscalls.PeerUnmanaged:
		matched = q.identified && q.them == 0
	}
	if !matched {
		return 0, 0
	}
	return dimension, 0
}
