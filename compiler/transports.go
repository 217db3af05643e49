package compiler

import (
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// A list that TCP and UDP share makes each packet pass the rules of the other
// transport, two expressions a rule: the load of the protocol, which is the
// dearest one that reads no header, and its comparison. Where there are some such
// rules the list is written once for each transport, which one rule in front tells apart; rules
// that are for both are written twice, and none asks for the protocol any more.

// splitFrom is how many rules one transport has to be spared for a list to be
// written for each: the rule in front and the rules that are there twice have
// their cost too.
const splitFrom = 2

// transports are TCP and UDP, the ones that policies decide in input.
type transports struct{ tcp, udp bool }

var (
	anyTransport = transports{tcp: true, udp: true}
	tcpOnly      = transports{tcp: true}
	udpOnly      = transports{udp: true}
)

func transportsOf(protocols []model.Protocol) transports {
	t := transports{tcp: len(protocols) == 0, udp: len(protocols) == 0}
	for _, p := range protocols {
		t.tcp = t.tcp || p == model.TCP
		t.udp = t.udp || p == model.UDP
	}
	return t
}

func (t transports) and(o transports) transports { return transports{t.tcp && o.tcp, t.udp && o.udp} }
func (t transports) not(o transports) transports { return transports{t.tcp && !o.tcp, t.udp && !o.udp} }

// term matches the transports where packets are known to be of some; false if
// they are none.
func (t transports) term(within transports) (term, bool) {
	switch t {
	case transports{}:
		return nil, false
	case within, anyTransport:
		return nil, true
	case tcpOnly:
		return protocolTerm(protoTCP), true
	}
	return protocolTerm(protoUDP), true
}

// suffix names the variants of chains that know the transport.
func (t transports) suffix() string {
	switch t {
	case tcpOnly:
		return "_tcp"
	case udpOnly:
		return "_udp"
	}
	return ""
}

// eachTransport writes a list, for each transport if that pays. If entered, packets
// get there by their transports already, to chains of their own.
func (l *lowering) eachTransport(e *emitter, h model.Hook, entered bool, list func()) (split bool) {
	var tcp, udp int // rules of one alone
	for _, r := range l.n.Rules(h) {
		switch transportsOf(r.Protocols) {
		case tcpOnly:
			tcp++
		case udpOnly:
			udp++
		}
	}
	// With a check of the local address in front, chains are as deep as the
	// kernel allows already (returningDepth).
	if max(tcp, udp) < splitFrom || l.bindMatters() || !l.passes.has(PassTransports) {
		list()
		return false
	}
	other := e.reserveNamed("tcp")
	if entered {
		e.cur.Name += ".udp"
	} else {
		e.rule("", append(protocolTerm(protoTCP), jumpTo(nft.VerdictGoto, other.Name))...)
		e.depth++
	}
	before := e.depth
	l.within = udpOnly
	list()
	after := e.depth
	e.cur, e.depth = other, before
	l.within = tcpOnly
	list()
	e.depth = max(e.depth, after)
	l.within = anyTransport
	return true
}
