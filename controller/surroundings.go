package controller

import (
	"fmt"
	"maps"
)

// listenAddresses passes on that addresses changed, until the monitor is closed.
func (r *Reconciler) listenAddresses(m *monitor) {
	for {
		select {
		case <-m.ended:
			return
		case <-m.addrs.Events():
			select {
			case r.addresses <- struct{}{}:
			default: // said already
			}
		}
	}
}

// locals returns the local addresses of the device namespaces, as text.
func (r *Reconciler) locals() map[string]string {
	all := make(map[string]string)
	for name, d := range r.host.devices {
		list, err := d.ns.LocalAddresses()
		all[name] = fmt.Sprint(list, err)
	}
	return all
}

// addressesChanged looks whether they are others: their lifetimes are renewed
// all the time.
func (r *Reconciler) addressesChanged() error {
	if r.devices != nil && maps.Equal(r.locals(), r.known) {
		return nil
	}
	return r.sync(cause{why: "addresses changed"})
}

// netnsChanged looks whether it is a device namespace of the policy that came
// or went.
func (r *Reconciler) netnsChanged() error {
	opened, err := r.host.openAll(r.good.Policy)
	there := make(map[string]string)
	for name, d := range opened {
		there[name] = identityKey(d)
	}
	if err == nil && r.devices != nil && maps.Equal(there, r.present) {
		return nil
	}
	return r.sync(cause{why: "network namespaces changed"})
}
