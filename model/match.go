package model

import (
	"net/netip"
	"strings"
)

// Mismatch is what keeps a rule from speaking of a flow; empty if nothing does.
type Mismatch string

// The mismatches, in the order in which they are looked for.
const (
	OtherProtocol Mismatch = "protocol"
	OtherPort     Mismatch = "port"
	OtherLocal    Mismatch = "local" // the local address
	OtherPeer     Mismatch = "peer"
	OnlyCounts    Mismatch = "audit" // the rule speaks of the flow, but is in audit: it decides nothing
)

// first returns the first rule without a mismatch, nil if there is none, and
// the mismatches of those before it.
func first(rules []Rule, mismatch func(*Rule) Mismatch) (match *Rule, passed []Mismatch) {
	for i := range rules {
		why := mismatch(&rules[i])
		if why == "" && !rules[i].Audit {
			return &rules[i], passed
		}
		if why == "" {
			why = OnlyCounts
		}
		passed = append(passed, why)
	}
	return nil, passed
}

// mismatch compares what every rule has: protocols and ports.
func (r *Rule) mismatch(proto Protocol, port uint16) Mismatch {
	switch {
	case !r.coversProtocol(proto):
		return OtherProtocol
	case !r.coversPort(port):
		return OtherPort
	}
	return ""
}

func (r *Rule) coversProtocol(proto Protocol) bool {
	for _, q := range r.Protocols {
		if q == proto {
			return true
		}
	}
	// Ports speak of protocols that have them.
	return len(r.Protocols) == 0 && (len(r.Ports) == 0 || proto.HasPorts())
}

func (r *Rule) coversPort(port uint16) bool {
	for _, pr := range r.Ports {
		if pr.Contains(port) {
			return true
		}
	}
	return len(r.Ports) == 0
}

// localMatches reports whether a rule speaks of the local address of an end.
// One that the kernel picks is the namespace's own.
func (p *Policy) localMatches(n *SocketNamespace, r *Rule, us End) bool {
	if len(r.Local) == 0 {
		return !us.Address.Addr().IsValid() || n.Owns(us.Address.Addr())
	}
	local := us.Local()
	for _, l := range r.Local {
		if l.Kind == PeerAny {
			return true
		}
		for _, a := range p.PeerAddresses(l, n) {
			if local.IsValid() && a.Contains(local) {
				return true
			}
		}
	}
	return false
}

// Owns reports whether addr is one of the namespace's own addresses: those it
// lists, any if it lists none, and loopback always.
func (n *SocketNamespace) Owns(addr netip.Addr) bool {
	if len(n.Addresses) == 0 || addr.Unmap().IsLoopback() {
		return true
	}
	for _, a := range n.Addresses {
		if a.Contains(addr) {
			return true
		}
	}
	return false
}

// PeerAddresses returns the addresses that a peer stands for where it is not
// recognised by identity: a namespace's are those it lists. self is n.
func (p *Policy) PeerAddresses(peer Peer, n *SocketNamespace) []AddressRange {
	switch peer.Kind {
	case PeerAddress:
		return []AddressRange{peer.Address}
	case PeerGroup:
		if g := p.Group(peer.Name); g != nil {
			return g.Addresses
		}
	case PeerNamespace:
		if m := p.Namespace(peer.Name); m != nil {
			return m.Addresses
		}
	case PeerSelf:
		return n.Addresses
	}
	return nil
}

// peerMatches reports whether a rule's peers include the other end.
func (p *Policy) peerMatches(r *Rule, us, them End, proto Protocol) bool {
	if len(r.Peers) == 0 {
		return true
	}
	known := identified(us, them, proto)
	for _, peer := range r.Peers {
		switch peer.Kind {
		case PeerAny:
			return true
		case PeerSelf:
			// A socket namespace is in one device namespace, so its
			// sockets always know each other by identity.
			if known && us.Namespace == them.Namespace {
				return true
			}
		case PeerUnmanaged:
			if known && them.Namespace == "" {
				return true
			}
		case PeerNamespace:
			if known {
				if them.Namespace == peer.Name || strings.HasPrefix(them.Namespace, peer.Name+"/") {
					return true
				}
				continue
			}
			fallthrough
		default:
			for _, a := range p.PeerAddresses(peer, nil) {
				if a.Contains(them.Local()) {
					return true
				}
			}
		}
	}
	return false
}
