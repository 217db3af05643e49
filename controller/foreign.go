package controller

import (
	"errors"
	"fmt"
	"os"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/nft"
)

// foreignChange is a commit by somebody else in a device namespace.
type foreignChange struct {
	device string
	event  nft.Event
	ended  *monitor // that heard the last thing it will hear; nil otherwise
}

func (r *Reconciler) foreignChanged(f foreignChange) error {
	// Others that wait were before the look that follows.
	for more := true; more; {
		if m := f.ended; m != nil && r.monitors[f.device] == m {
			m.conn.Close()
			delete(r.monitors, f.device) // sync begins another
		}
		select {
		case f = <-r.foreign:
		default:
			more = false
		}
	}
	why := fmt.Sprintf("somebody else changed nftables: pid %d (%s)", f.event.PID, f.event.Process)
	if f.event.Lost {
		why = "notifications of nftables were lost"
	}
	return r.sync(why)
}

// monitor listens for commits in one device namespace.
type monitor struct {
	conn *nft.Monitor
	ns   string // identity of the device namespace
	own  uint32 // port of the socket whose commits are not foreign
}

// watchDevices has a monitor in each open device namespace, and none elsewhere.
func (r *Reconciler) watchDevices() {
	for name, m := range r.monitors {
		if d := r.host.devices[name]; d == nil || identityKey(d) != m.ns || d.conn.Port() != m.own {
			m.conn.Close()
			delete(r.monitors, name)
		}
	}
	for name, d := range r.host.devices {
		if r.monitors[name] != nil {
			continue
		}
		conn, err := nft.OpenMonitor(d.ns.NetNS())
		if err != nil {
			r.log.Error("foreign changes will be noticed by the safety resync only", "device", name, "error", err)
			continue
		}
		m := &monitor{conn, identityKey(d), d.conn.Port()}
		r.monitors[name] = m
		go r.listen(name, m)
	}
}

func (r *Reconciler) closeMonitors() {
	for _, m := range r.monitors {
		m.conn.Close()
	}
}

// listen passes on what others commit, until the monitor is closed.
func (r *Reconciler) listen(device string, m *monitor) {
	for {
		e, err := m.conn.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			r.log.Warn("nftables is not heard of any more", "device", device, "error", err)
			select {
			case r.foreign <- foreignChange{device, nft.Event{Lost: true}, m}:
			case <-r.ended:
			}
			return
		case !e.Lost && (e.Port == m.own || len(e.Touched(compiler.TableName)) == 0):
			continue
		}
		select {
		case r.foreign <- foreignChange{device: device, event: e}:
		default: // enough wait already
		}
	}
}
