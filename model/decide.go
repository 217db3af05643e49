package model

import (
	"net/netip"
	"slices"
)

// End is one end of a flow.
type End struct {
	// Namespace is the socket namespace of the socket, an instance
	// (user/1000) where it is a template's; empty for an unmanaged socket
	// and for one that is elsewhere.
	Namespace string
	// Device is the device namespace of the socket; empty for a socket on
	// another machine, or in a network namespace that the policy does not name.
	Device string
	// Address is the local address and port of the socket as the packet
	// shows them. At the connecting end the zero Addr means that the kernel
	// picks it, and port 0 that it picks the port: nothing was bound.
	Address netip.AddrPort
	// Picked is the address that the kernel picks where Address has none; the
	// zero Addr if that is not known.
	Picked netip.Addr
}

// Local returns the address that the end's packets have; the zero Addr if it is
// not known.
func (e End) Local() netip.Addr {
	if e.Address.Addr().IsValid() {
		return e.Address.Addr()
	}
	return e.Picked
}

// Flow is an attempt to reach a socket: the connect of a TCP or SCTP
// connection, or a datagram that is no answer to another.
type Flow struct {
	Protocol Protocol
	From, To End
}

// Reason says what decided.
type Reason string

// The reasons of a [Verdict].
const (
	ByRule      Reason = "rule"      // Rule is its index
	BySame      Reason = "same"      // both sockets are in one socket namespace
	ByDefault   Reason = "default"   // no rule matched
	ByUnmanaged Reason = "unmanaged" // no socket namespace claims this end, or it is elsewhere
)

// Verdict is the decision of one hook.
type Verdict struct {
	Hook   Hook
	Action Action
	Error  Errno // set when Action is Deny
	Reason Reason
	Rule   *Rule // set when Reason is ByRule
	Audit  bool  // the namespace only counts: a Deny is not carried out
	// Passed says why each rule that was asked before Rule (each of the list,
	// if none decided) does not speak of the flow, in the order of the list.
	Passed []Mismatch
}

// Refuses reports whether the verdict stops the flow.
func (v Verdict) Refuses() bool { return v.Action == Deny && !v.Audit }

// Decision is what becomes of a flow. The hooks are listed in the order in
// which they are asked; the first that refuses decides what is seen.
type Decision struct {
	FromBind Verdict // may the connecting socket have its local address?
	Connect  Verdict
	ToBind   Verdict // may the listening socket have its local address?
	Accept   Verdict
}

// Allowed reports whether the flow happens.
func (d Decision) Allowed() bool { return d.refusal() == nil }

// Error returns what the connecting application sees, or "" if the flow is
// allowed. A socket bound where it may not be fails in bind(2) already when it
// is the connecting one; when it is the listening one nothing is there to
// connect to.
func (d Decision) Error() Errno {
	switch v := d.refusal(); {
	case v == nil:
		return ""
	case v == &d.ToBind:
		return ECONNREFUSED
	default:
		return v.Error
	}
}

func (d *Decision) refusal() *Verdict {
	for _, v := range []*Verdict{&d.FromBind, &d.Connect, &d.ToBind, &d.Accept} {
		if v.Refuses() {
			return v
		}
	}
	return nil
}

// Decide is what a policy means: which rule of which hook decides at each end
// of a flow. It is the reference that the compiled rules are held against.
func Decide(p *Policy, f Flow) Decision {
	return Decision{
		FromBind: DecideBind(p, f.From.Namespace, f.Protocol, f.From.Address),
		Connect:  decidePeer(p, Connect, f),
		ToBind:   DecideBind(p, f.To.Namespace, f.Protocol, f.To.Address),
		Accept:   decidePeer(p, Accept, f),
	}
}

// DecideBind decides about a local address of a namespace's socket. The zero
// Addr stands for a socket that binds no address (or the wildcard): the
// namespace's own addresses. Port 0 is a port that the kernel picks.
func DecideBind(p *Policy, namespace string, proto Protocol, local netip.AddrPort) Verdict {
	n := p.Namespace(namespace)
	if namespace == "" || n == nil {
		return Verdict{Hook: Bind, Action: Allow, Reason: ByUnmanaged}
	}
	audit := n.Mode == Audit
	wildcard := !local.Addr().IsValid() || local.Addr().IsUnspecified()
	own := wildcard || n.Owns(local.Addr())
	if local.Port() == 0 && own {
		return Verdict{Hook: Bind, Action: Allow, Reason: ByDefault, Audit: audit}
	}
	rule, passed := first(n.Bind, func(r *Rule) Mismatch {
		if why := r.mismatch(proto, local.Port()); why != "" {
			return why
		}
		if wildcard && len(r.Local) == 0 || !wildcard && p.localMatches(n, r, End{Address: local}) {
			return ""
		}
		return OtherLocal
	})
	if rule != nil {
		return rule.verdict(bindError(p, n, proto, local, own), audit, passed)
	}
	action, errno := Allow, Errno("")
	if d := n.Default.Bind; d != nil {
		action, errno = d.Action, d.Error
	} else if len(n.Bind) > 0 {
		action = Deny
	}
	if !own {
		action, errno = Deny, EADDRNOTAVAIL
	}
	if action == Deny && errno == "" {
		errno = bindError(p, n, proto, local, own)
	}
	return Verdict{Hook: Bind, Action: action, Error: errno, Reason: ByDefault, Audit: audit, Passed: passed}
}

// Shares reports whether two namespaces of a device namespace have a local
// address in common, loopback aside. The ports of each are then taken to the
// other, on all of its addresses.
func (n *SocketNamespace) Shares(m *SocketNamespace) bool {
	if len(n.Addresses) == 0 || len(m.Addresses) == 0 {
		return true
	}
	return slices.ContainsFunc(n.Addresses, func(a AddressRange) bool {
		return slices.ContainsFunc(m.Addresses, func(b AddressRange) bool {
			return a.Contains(b.First) || b.Contains(a.First)
		})
	})
}

// bindError is what a denied bind gives when its rule does not say:
// EADDRINUSE for a port that another namespace of the device namespace may
// bind because a rule of it says so. A port that another's socket holds
// without such a rule gives EADDRINUSE too; that is known to the kernel alone.
func bindError(p *Policy, n *SocketNamespace, proto Protocol, local netip.AddrPort, own bool) Errno {
	if !own {
		return EADDRNOTAVAIL
	}
	if local.Port() == 0 || proto != TCP && proto != UDP {
		return EACCES
	}
	wildcard := !local.Addr().IsValid() || local.Addr().IsUnspecified()
	for i := range p.SocketNamespaces {
		m := &p.SocketNamespaces[i]
		if m == n || m.Device != n.Device {
			continue
		}
		for j := range m.Bind {
			r := &m.Bind[j]
			if r.Action != Allow || len(r.Local) > 0 || len(r.Ports) == 0 || r.mismatch(proto, local.Port()) != "" {
				continue
			}
			if n.Shares(m) || !wildcard && local.Addr().Unmap().IsLoopback() {
				return EADDRINUSE
			}
		}
	}
	return EACCES
}

// decidePeer decides Connect at the From end or Accept at the To end.
func decidePeer(p *Policy, h Hook, f Flow) Verdict {
	us, them := f.From, f.To
	if h == Accept {
		us, them = f.To, f.From
	}
	n := p.Namespace(us.Namespace)
	if us.Namespace == "" || n == nil || (h == Accept && !acceptVisible(f.Protocol)) {
		return Verdict{Hook: h, Action: Allow, Reason: ByUnmanaged}
	}
	audit := n.Mode == Audit
	port := f.To.Address.Port() // connect: the remote port; accept: the local port
	rule, passed := first(n.Rules(h), func(r *Rule) Mismatch {
		if why := r.mismatch(f.Protocol, port); why != "" {
			return why
		}
		if !p.localMatches(n, r, us) {
			return OtherLocal
		}
		if !p.peerMatches(r, us, them, f.Protocol) {
			return OtherPeer
		}
		return ""
	})
	if rule != nil {
		return rule.verdict(ECONNREFUSED, audit, passed)
	}
	if identified(us, them, f.Protocol) && us.Namespace == them.Namespace {
		return Verdict{Hook: h, Action: Allow, Reason: BySame, Audit: audit, Passed: passed}
	}
	v := Verdict{Hook: h, Action: Deny, Reason: ByDefault, Audit: audit, Passed: passed}
	if d := n.Default.For(h); d != nil {
		v.Action, v.Error = d.Action, d.Error
	}
	if v.Action == Deny && v.Error == "" {
		v.Error = ECONNREFUSED
	}
	return v
}

// acceptVisible reports whether the kernel can tell which socket receives a
// packet of the protocol before it is delivered: nft_socket looks up TCP and
// UDP only (net/ipv4/netfilter/nf_socket_ipv4.c).
func acceptVisible(proto Protocol) bool { return proto == TCP || proto == UDP }

// identified reports whether the two ends know each other by identity: both
// are in one device namespace, and the protocol shows the receiving socket.
func identified(us, them End, proto Protocol) bool {
	return us.Device != "" && us.Device == them.Device && acceptVisible(proto)
}

func (r *Rule) verdict(errno Errno, audit bool, passed []Mismatch) Verdict {
	v := Verdict{Hook: r.Hook, Action: r.Action, Reason: ByRule, Rule: r, Audit: audit, Passed: passed}
	if r.Action == Deny {
		v.Error = r.Error
		if v.Error == "" {
			v.Error = errno
		}
	}
	return v
}
