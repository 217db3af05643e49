package controller

import (
	"errors"
	"os"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/watch"
)

// foreignChange is a commit by somebody else in a device namespace.
type foreignChange struct {
	device string
	ns     string // its network namespace, which may have another name too (identityKey)
	by     events.Actor
	lost   bool     // notifications were lost: who changed what is not known
	ended  *monitor // that heard the last thing it will hear; nil otherwise
	err    error    // why it ended
}

// mostActors is how many commits are named for one repair.
const mostActors = 16

func (r *Reconciler) foreignChanged(f foreignChange) error {
	c := cause{why: "somebody else changed nftables", by: make(map[string][]events.Actor)}
	// Others that wait were before the look that follows.
	for more := true; more; {
		switch {
		case f.lost:
			c.why = "notifications of nftables were lost"
		default:
			for _, name := range r.namesOf(f) {
				if len(c.by[name]) < mostActors {
					c.by[name] = append(c.by[name], f.by)
				}
			}
		}
		if m := f.ended; m != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: f.device, Message: "nftables was not heard of any more and is listened to anew", Error: f.err.Error()})
			if r.monitors[f.device] == m {
				m.close()
				delete(r.monitors, f.device) // sync begins another
			}
		}
		select {
		case f = <-r.foreign:
		default:
			more = false
		}
	}
	return r.sync(c)
}

// namesOf returns the names of the device namespace of a change: more than one where
// a policy that can't be enforced gave it two.
func (r *Reconciler) namesOf(f foreignChange) []string {
	names := []string{f.device}
	for name, d := range r.host.devices {
		if name != f.device && identityKey(d) == f.ns {
			names = append(names, name)
		}
	}
	return names
}

// monitor listens for commits and changed addresses in one device namespace.
type monitor struct {
	conn  *nft.Monitor
	addrs *watch.Addresses // nil if they can't be watched
	ns    string           // identity of the device namespace
	own   uint32           // port of the socket whose commits are not foreign
	ended chan struct{}
}

func (m *monitor) close() {
	close(m.ended)
	m.conn.Close()
	if m.addrs != nil {
		m.addrs.Close()
	}
}

// watchDevices has a monitor in each open device namespace, and none elsewhere.
func (r *Reconciler) watchDevices() {
	for name, m := range r.monitors {
		if d := r.host.devices[name]; d == nil || identityKey(d) != m.ns || d.conn.Port() != m.own {
			m.close()
			delete(r.monitors, name)
		}
	}
	for name, d := range r.host.devices {
		if r.monitors[name] != nil {
			continue
		}
		m := &monitor{ns: identityKey(d), own: d.conn.Port(), ended: make(chan struct{})}
		var err error
		if m.conn, err = nft.OpenMonitor(d.ns.NetNS(), m.own); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: name, Message: "what others change will be noticed by the safety resync only", Error: err.Error()})
			continue
		}
		if m.addrs, err = watch.OpenAddresses(d.ns.NetNS()); err != nil {
			r.emit(events.Event{Kind: events.Degraded, Device: name, Message: "changed addresses will be noticed by the safety resync only", Error: err.Error()})
		} else {
			go r.listenAddresses(m)
		}
		r.monitors[name] = m
		go r.listen(name, m)
	}
}

func (r *Reconciler) closeMonitors() {
	for _, m := range r.monitors {
		m.close()
	}
}

// listen passes on what others commit, until the monitor is closed.
func (r *Reconciler) listen(device string, m *monitor) {
	for {
		e, err := m.conn.Receive()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case r.foreign <- foreignChange{device: device, lost: true, ended: m, err: err}:
			case <-r.ended:
			}
			return
		}
		touched := e.Touched(compiler.TableName)
		if !e.Lost && len(touched) == 0 {
			continue
		}
		f := foreignChange{device: device, ns: m.ns, lost: e.Lost}
		if !e.Lost {
			f.by = actorOf(e.Generation, touched) // at once: it may end soon
		}
		select {
		case r.foreign <- f:
		default: // enough wait already
		}
	}
}
