// Package controller has the effects of sockns in their order: load the
// policy, look at the host, compile, compare with the kernel, apply. What it
// decides with is pure and lives in model and compiler.
package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// Host is this machine as sockns meets it: the cgroup tree, and one open
// device namespace with one netlink socket for each that was asked for. It is
// not safe for concurrent use.
type Host struct {
	Cgroups *cgroup.Tree
	home    *device.Namespace // the network namespace that the program was started in
	devices map[string]*hostDevice
	support *syscalls.Support      // nil until asked
	probing chan *syscalls.Support // nil, or where the answer comes
	tier    *syscalls.Tier         // nil until it is changed or followed
	figures *figures               // what rules had counted
}

// hostDevice is an open device namespace.
type hostDevice struct {
	name string
	path string
	ns   *device.Namespace
	conn *nft.Conn
}

func (d *hostDevice) close() {
	d.conn.Close()
	d.ns.Close()
}

// OpenHost opens the cgroup tree and the host device namespace.
func OpenHost() (*Host, error) {
	tree, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	home, err := device.Open(model.DeviceNamespace{Name: model.HostDevice})
	if err != nil {
		return nil, err
	}
	return &Host{Cgroups: tree, home: home, devices: make(map[string]*hostDevice), figures: newFigures()}, nil
}

// Close closes all that the host has open. Nothing changes in the kernel.
func (h *Host) Close() {
	for _, d := range h.devices {
		d.close()
	}
	h.closeTier()
	if h.probing != nil {
		h.callSupport()
	}
	if h.support != nil {
		h.support.Close()
	}
	h.home.Close()
}

// Instance identifies this sockns among those of other network namespaces of
// the machine: the cookie of the host device namespace.
func (h *Host) Instance() uint64 { return h.home.Identity().Cookie }

// open returns the open device namespace, again if its path leads to another
// one now. errors.Is(err, fs.ErrNotExist) if there is none.
func (h *Host) open(d model.DeviceNamespace) (*hostDevice, error) {
	ns, err := device.Open(d)
	if err != nil {
		if old := h.devices[d.Name]; old != nil && errors.Is(err, fs.ErrNotExist) {
			old.close()
			delete(h.devices, d.Name)
		}
		return nil, err
	}
	if old := h.devices[d.Name]; old != nil {
		if old.ns.Identity() == ns.Identity() {
			ns.Close()
			return old, nil
		}
		old.close()
		delete(h.devices, d.Name)
	}
	conn, err := nft.Open(ns.NetNS())
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("device namespace %s: %w", d.Name, err)
	}
	opened := &hostDevice{name: d.Name, path: d.Path, ns: ns, conn: conn}
	h.devices[d.Name] = opened
	return opened, nil
}

// openAll opens the device namespaces of a policy that exist.
func (h *Host) openAll(p *model.Policy) (map[string]*hostDevice, error) {
	opened := make(map[string]*hostDevice)
	names := make(map[device.Identity]string)
	for _, d := range p.DeviceNamespaces {
		dev, err := h.open(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if other, twice := names[dev.ns.Identity()]; twice {
			return nil, fmt.Errorf("%s: device namespaces %s and %s are the same network namespace: name it once", d.Pos, other, d.Name)
		}
		names[dev.ns.Identity()] = d.Name
		opened[d.Name] = dev
	}
	return opened, nil
}

// Facts looks at the host for what the compiler needs.
func (h *Host) facts(p *model.Policy, devices map[string]*hostDevice) (compiler.Facts, error) {
	f := compiler.Facts{Devices: make(map[string]compiler.DeviceFacts), Instance: h.Instance()}
	for name, d := range devices {
		df, err := deviceFacts(p, d)
		if err != nil {
			return f, err
		}
		f.Devices[name] = df
	}
	found, err := h.Cgroups.Resolve(p)
	if err != nil {
		return f, err
	}
	if len(found.Conflicts) > 0 {
		return f, found.Conflicts[0]
	}
	addMembers(&f, p, found)
	return f, nil
}

func deviceFacts(p *model.Policy, d *hostDevice) (compiler.DeviceFacts, error) {
	var df compiler.DeviceFacts
	var err error
	if needsAddresses(p, d.name) {
		if df.Addresses, err = d.ns.LocalAddresses(); err != nil {
			return df, err
		}
		// Those with a zone can't be told from others by a packet's address.
		kept := df.Addresses[:0]
		for _, a := range df.Addresses {
			if !a.IsLinkLocalUnicast() || a.Is4() {
				kept = append(kept, a)
			}
		}
		df.Addresses = append([]netip.Addr(nil), kept...)
	}
	df.EphemeralFirst, df.EphemeralLast, err = d.ns.EphemeralPorts()
	return df, err
}

// needsAddresses reports whether a socket namespace of the device lists
// addresses, so that those of the device matter.
func needsAddresses(p *model.Policy, dev string) bool {
	for i := range p.SocketNamespaces {
		if n := &p.SocketNamespaces[i]; n.Device == dev && len(n.Addresses) > 0 {
			return true
		}
	}
	return false
}

// addMembers turns what was found in the cgroup tree into facts. A cgroup that
// is named like a unit but lies in a tree that was delegated to a user is no
// member: its owner chose the name, and could choose any.
func addMembers(f *compiler.Facts, p *model.Policy, found *cgroup.Found) {
	byPath := make(map[string]bool)
	for i := range p.SocketNamespaces {
		for _, m := range p.SocketNamespaces[i].Members {
			byPath[m.Cgroup] = true
		}
	}
	for _, m := range found.Members {
		if m.Owner != 0 && m.Template == "" && !byPath[m.Path] {
			continue
		}
		f.Members = append(f.Members, compiler.Member{Namespace: m.Namespace, Path: m.Path, ID: m.ID, Level: m.Level})
	}
	for _, m := range found.Missing {
		f.Missing = append(f.Missing, compiler.Missing{Namespace: m.Namespace, Member: m.Member})
	}
	for _, d := range found.Doors {
		door := compiler.Door{Device: d.Device, Templates: d.Templates, Path: d.Path, ID: d.ID, Level: d.Level}
		for _, m := range d.Exempt {
			door.Exempt = append(door.Exempt, compiler.Member{Path: m.Path, ID: m.ID, Level: d.Level + 1})
		}
		f.Doors = append(f.Doors, door)
	}
}
