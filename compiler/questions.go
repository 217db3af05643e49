package compiler

import (
	"slices"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// Most packets are allowed by a rule that asks for ports and addresses alone. What
// is dearer to find out (is it an answer? are both ends in one namespace? who is
// the receiver? each is a lookup with four fields, or of the socket, which costs as
// much as ten rules) is asked where a list first needs to know, and only about the
// transports of the rule that does:
//
//   - whether a datagram is an answer, before the first refusal, and before what
//     allows it to a port of a client: an answer that is allowed by such a rule
//     must not be remembered as if it were a question, or its own answer would
//     be let pass whoever has the client's port by then;
//   - whether both ends are in one namespace, before the first refusal too if
//     nothing forbids the namespace to reach itself or logs that it does. Else at the beginning, so that no
//     rule counts twice;
//   - who the receiver is, before the first rule of the connecting end that
//     names a peer. It has to come last: it overwrites who the sender is.

// questions are those that a list has not asked yet.
type questions struct {
	answers  bool
	same     transports
	receiver bool
	// receivers are the transports whose receiver is known.
	receivers transports
}

// first begins a list, or a part of one that not all its packets come to by the
// same way, with nothing asked.
func (l *lowering) first(q questions) { l.open = q }

// early asks everything at the beginning of a list that names identities or
// does not.
func (l *lowering) early(e *emitter, rules []model.Rule) {
	if l.passes.has(PassLate) {
		return
	}
	l.ask(e, anyTransport, toRefuse)
	for i := range rules {
		if namesIdentity(&rules[i]) {
			l.ask(e, transportsOf(rules[i].Protocols), toName)
		}
	}
}

// The reasons to ask.
type reason uint8

const (
	toRefuse   reason = iota
	toRemember        // allowed, and its answer will be
	toName            // the rule names a peer
)

// ask writes what has to be known before a rule for some transports.
func (l *lowering) ask(e *emitter, of transports, why reason) {
	q, of := &l.open, of.and(l.within)
	who := transports{}
	if why == toName && q.receiver || of.and(q.receivers) != (transports{}) {
		who = of.not(q.receivers) // if of one transport, then of all that the rule is for
	}
	if same := of.and(q.same); (why == toRefuse || who != transports{}) && same != (transports{}) {
		if t, _ := same.term(l.within); len(l.deep) > 0 {
			e.rule("", append(t, jumpTo(nft.VerdictJump, chainSame))...)
		}
		q.same = q.same.not(same)
	}
	if of.udp && q.answers && why != toName {
		t, _ := udpOnly.term(l.within)
		e.rule("", append(t, jumpTo(nft.VerdictJump, chainAnswers))...)
		q.answers = false
	}
	if who != (transports{}) {
		t, _ := who.term(l.within)
		e.rule("", append(t, jumpTo(nft.VerdictJump, chainWhose))...)
		q.receivers = transports{q.receivers.tcp || who.tcp, q.receivers.udp || who.udp}
	}
	l.lost = of.and(q.receivers) != (transports{})
}

// sameRule asks whether sender and receiver are in one namespace that has the
// receiver's cgroup of a level: that namespace's own rules decide then.
func sameRule(level int) nft.Rule {
	return ruleOf(
		nft.MatchSet{Key: []nft.Field{priorityField, cgroupKey(level)[0]}, Set: selfSet(level)},
		nft.VMap{Key: classField, Map: selvesMap})
}

// askFor asks what a rule of a connect or accept list needs to know.
func (l *lowering) askFor(e *emitter, r *model.Rule, v view) {
	of := transportsOf(r.Protocols)
	if namesIdentity(r) {
		l.ask(e, of, toName)
	}
	switch {
	case r.Action == model.Deny:
		l.ask(e, of, toRefuse)
	case v.remembers() && l.toClients(r.Ports):
		l.ask(e, of, toRemember)
	}
}

// remembers reports whether a datagram that a list allows there is remembered,
// if it has not been asked before whether it is an answer.
func (v view) remembers() bool { return v == viewConnect || v == viewAccept }

// toClients reports whether a rule's ports may be those of clients.
func (l *lowering) toClients(ports []model.PortRange) bool {
	for _, p := range ports {
		for _, e := range l.ephemeral() {
			if p.First <= e.Last && e.First <= p.Last {
				return true
			}
		}
	}
	return len(ports) == 0
}

// namesIdentity reports whether a rule asks for the identity of the other end.
func namesIdentity(r *model.Rule) bool {
	return slices.ContainsFunc(r.Peers, func(p model.Peer) bool {
		return p.Kind == model.PeerNamespace || p.Kind == model.PeerUnmanaged
	})
}

// mattersToSelf reports whether a rule refuses or tells of something that the
// namespace sends to itself.
func (l *lowering) mattersToSelf(r *model.Rule) bool {
	return (r.Action == model.Deny || r.Log) && len(l.peerTerms(l.n, r, viewSelf)) > 0
}

// selfFree returns the transports by which two sockets of the namespace reach
// each other and nothing has to be told of it.
func (l *lowering) selfFree() transports {
	if l.bindMatters() {
		return transports{}
	}
	free := transports{tcp: true, udp: true}
	for _, h := range []model.Hook{model.Connect, model.Accept} {
		for _, r := range l.n.Rules(h) {
			if l.mattersToSelf(&r) {
				free = free.not(transportsOf(r.Protocols))
			}
		}
	}
	return free
}
