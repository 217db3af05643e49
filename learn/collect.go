package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

// Collection gathers the flows of one namespace from decisions. The zero value
// but for Namespace is ready. It is not safe for concurrent use.
type Collection struct {
	Namespace string // its name, without an instance

	flows []Flow
	index map[flowKey]int
	// Untold counts decisions that were not told one by one: those of floods,
	// and what a slow reader lost.
	Untold uint64
	// Shared counts decisions of one of several namespaces with the same rules,
	// where the kernel did not tell of which.
	Shared uint64
}

// flowKey is what flows that are one have in common.
type flowKey struct {
	namespace     string
	hook          model.Hook
	protocol      model.Protocol
	local, remote netip.AddrPort
	peer          string
	unmanaged     bool
}

// Flows returns what was gathered, in the order in which it was first seen.
func (c *Collection) Flows() []Flow { return c.flows }

// Add adds an event, if it is a decision of the namespace or tells of lost
// ones. The error is about a decision that this version does not know.
func (c *Collection) Add(e events.Event) error {
	c.Untold += e.Lost
	d := e.Decided
	if d == nil {
		return nil
	}
	if slices.Contains(d.OneOf, c.Namespace) {
		c.Shared += d.Count + d.Unreported
		return nil
	}
	if name, _, _ := strings.Cut(e.Namespace, "/"); name != c.Namespace {
		return nil
	}
	c.Untold += d.Unreported
	if d.Count == 0 {
		return nil // it tells how many there were alone
	}
	i := slices.IndexFunc(model.Hooks[:], func(h model.Hook) bool { return h.String() == d.Hook })
	if i < 0 || !slices.Contains(model.Protocols[:], d.Protocol) {
		return fmt.Errorf("hook %q, protocol %q: no decision of this version", d.Hook, d.Protocol)
	}
	f := Flow{
		Namespace: e.Namespace, Hook: model.Hooks[i], Protocol: d.Protocol,
		Count: d.Count, First: e.Time, Last: e.Time,
	}
	if !d.Since.IsZero() {
		f.First = d.Since
	}
	switch f.Hook {
	case model.Connect:
		f.Local, f.Remote = d.Source, d.Destination
	case model.Accept:
		f.Local, f.Remote = d.Destination, d.Source
	case model.Bind:
		f.Local = d.Source
	}
	if a := f.Local.Addr(); a.IsUnspecified() {
		f.Local = netip.AddrPortFrom(netip.Addr{}, f.Local.Port())
	}
	if f.Hook != model.Bind && !f.Remote.Addr().IsValid() {
		return fmt.Errorf("%s of %s: the other end's address is missing", d.Hook, e.Namespace)
	}
	if d.Peer == "unmanaged" {
		f.Unmanaged = true
	} else {
		f.Peer = d.Peer
	}
	c.merge(f)
	return nil
}

// merge adds a flow to those like it. The client's port is one that the kernel
// picked and tells nothing, but for datagrams, where it tells answers.
func (c *Collection) merge(f Flow) {
	datagrams := f.Protocol == model.UDP || f.Protocol == model.UDPLite
	if !datagrams && f.Hook == model.Connect {
		f.Local = netip.AddrPortFrom(f.Local.Addr(), 0)
	} else if !datagrams && f.Hook == model.Accept {
		f.Remote = netip.AddrPortFrom(f.Remote.Addr(), 0)
	}
	k := flowKey{f.Namespace, f.Hook, f.Protocol, f.Local, f.Remote, f.Peer, f.Unmanaged}
	if i, ok := c.index[k]; ok {
		have := &c.flows[i]
		s := seen{have.Count, have.First, have.Last}.and(seen{f.Count, f.First, f.Last})
		have.Count, have.First, have.Last = s.count, s.first, s.last
		return
	}
	if c.index == nil {
		c.index = make(map[flowKey]int)
	}
	c.index[k] = len(c.flows)
	c.flows = append(c.flows, f)
}
