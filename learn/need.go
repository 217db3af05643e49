package learn

import (
	"net/netip"
	"strings"
	"time"

	"github.com/sockns/sockns/model"
)

// need is what one flow needs to be allowed: a rule of one protocol, one port
// and one peer.
type need struct {
	hook     model.Hook
	local    string // address that is not the namespace's own
	protocol model.Protocol
	ports    model.PortRange // zero: none
	peer     string          // as the language names it
	address  netip.Addr      // if the peer is one
	seen     seen
	note     string
}

// seen is how often and when.
type seen struct {
	count       uint64
	first, last time.Time
}

func (s seen) and(t seen) seen {
	s.count += t.count
	if s.first.IsZero() || !t.first.IsZero() && t.first.Before(s.first) {
		s.first = t.first
	}
	if t.last.After(s.last) {
		s.last = t.last
	}
	return s
}

// say adds to the note.
func (w *need) say(words string) {
	if w.note != "" {
		words = w.note + "; " + words
	}
	w.note = words
}

func needOf(p *model.Policy, n *model.SocketNamespace, f Flow, o Options) need {
	w := need{hook: f.Hook, protocol: f.Protocol, seen: seen{max(f.Count, 1), f.First, f.Last}}
	port := f.Local.Port()
	if f.Hook == model.Connect {
		port = f.Remote.Port()
	}
	if f.Protocol.HasPorts() && port != 0 {
		w.ports = model.PortRange{First: port, Last: port}
	}
	if o.EphemeralPorts.Contains(port) && port != 0 {
		w.say("the kernel picks ports like this one: another is likely next time")
		if o.WholeEphemeral {
			w.ports, w.note = o.EphemeralPorts, "all ports that the kernel picks from"
		}
	}
	if f.Hook == model.Bind && port == 0 {
		w.say("for a port that the kernel picks, a rule has to allow all")
	}
	if a := f.Local.Addr(); a.IsValid() && !a.IsUnspecified() && !n.Owns(a) {
		w.local = a.Unmap().WithZone("").String()
	}
	if f.Hook != model.Bind {
		w.peer, w.address = peerOf(p, n, f)
		if m := p.Namespace(w.peer); m != nil && m.Each != "" && !w.address.IsValid() {
			instance := "one" // packets in audit do not tell which
			if _, name, ok := strings.Cut(f.Peer, "/"); ok {
				instance = name
			}
			w.say("of " + w.peer + ", " + instance + " was seen: its name means all")
		}
		if f.Peer == "" && !f.Unmanaged && (w.address.IsLoopback() || w.address == f.Local.Addr().Unmap()) {
			w.say(ofThisMachine)
		}
	}
	return w
}

// ofThisMachine is about the other end of a packet, where it is near and the
// kernel did not tell its namespace.
const ofThisMachine = "not known whose: an address of this machine means everybody on it"

// peerOf names the other end as the language recognises it: by its socket
// namespace where that decides, by address where it does not.
func peerOf(p *model.Policy, n *model.SocketNamespace, f Flow) (string, netip.Addr) {
	known := f.Protocol == model.TCP || f.Protocol == model.UDP // who receives is seen for these alone
	remote := f.Remote.Addr().Unmap().WithZone("")
	if m := p.Namespace(f.Peer); f.Peer != "" && m != nil {
		if m.Device == n.Device && known {
			return m.Name, netip.Addr{}
		}
		for _, a := range m.Addresses {
			if a.Contains(remote) && (m.Device != n.Device || !known) {
				return m.Name, netip.Addr{}
			}
		}
	} else if f.Unmanaged && known {
		return "unmanaged", netip.Addr{}
	}
	return remote.String(), remote
}

// prefixes replaces addresses by the prefix that they are in.
func prefixes(needs []need) []need {
	type place struct {
		hook   model.Hook
		prefix netip.Prefix
	}
	widest := func(a netip.Addr) netip.Prefix {
		bits := 64
		if a.Is4() {
			bits = 24
		}
		p, _ := a.Prefix(bits)
		return p
	}
	found := make(map[place]map[netip.Addr]bool)
	for _, w := range needs {
		if w.address.IsValid() && !w.address.IsLoopback() {
			at := place{w.hook, widest(w.address)}
			if found[at] == nil {
				found[at] = make(map[netip.Addr]bool)
			}
			found[at][w.address] = true
		}
	}
	for i := range needs {
		w := &needs[i]
		if !w.address.IsValid() {
			continue
		}
		addresses := found[place{w.hook, widest(w.address)}]
		if len(addresses) < PrefixMin {
			continue
		}
		p := netip.PrefixFrom(w.address, w.address.BitLen())
		for a := range addresses {
			for !p.Contains(a) {
				p, _ = w.address.Prefix(p.Bits() - 1)
			}
		}
		w.peer, w.address = p.String(), netip.Addr{}
		w.say(counted(len(addresses), "address", "addresses") + " of " + p.String() + " seen")
	}
	return needs
}
