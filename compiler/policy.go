package compiler

import (
	"fmt"
	"strings"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// The chains that all policies end in; see assemble.go.
const (
	chainPass     = "pass"     // remember where a datagram's answer may come from, accept
	chainAdmit    = "admit"    // the accepting end allows: ask the connecting end, then pass
	chainAnswers  = "answers"  // accept the answer to a datagram that passed
	chainReceiver = "receiver" // put the identity of the receiving socket into the priority
)

// rejectChain names the chain that refuses with an error at once.
func rejectChain(e model.Errno) string { return "reject." + strings.ToLower(string(e)) }

// refuseChain names the chain of the accepting end's refusal: the connecting
// end is asked first, because its own error comes first.
func refuseChain(e model.Errno) string { return "refuse." + strings.ToLower(string(e)) }

// The places where a policy's lists are asked, and the names of their first
// chains below the policy's own name.
const (
	partConnect = "connect"
	partLocal   = "local"
	partAccept  = "accept"
	partSelf    = "self"
)

// chains is a compiled policy: what a socket namespace's rules become. Chain
// names are relative (connect, accept.1, ...) until share names the policy.
type chains struct {
	list []*nft.Chain
	// selfFree says that nothing stops two sockets of the namespace from
	// reaching each other, so that there is no chain partSelf.
	selfFree bool
	name     string // set by share
}

// lowering is the work on one socket namespace.
type lowering struct {
	*resolver
	n        *model.SocketNamespace
	audit    bool
	comments map[*model.Rule]string // each is asked for in several places
}

// comment returns the comment of a rule.
func (l *lowering) comment(r *model.Rule) string {
	c, ok := l.comments[r]
	if !ok {
		c = ruleComment(r)
		l.comments[r] = c
	}
	return c
}

func lowerPolicy(r *resolver, n *model.SocketNamespace) *chains {
	l := &lowering{resolver: r, n: n, audit: n.Mode == model.Audit, comments: make(map[*model.Rule]string)}
	c := &chains{}
	for _, part := range []func() *emitter{l.connect, l.local, l.accept} {
		c.list = append(c.list, part().chains...)
	}
	if self := l.self(); self != nil {
		c.list = append(c.list, self.chains...)
	} else {
		c.selfFree = true
	}
	return c
}

// connect is asked in output about packets that do not leave through lo.
func (l *lowering) connect() *emitter {
	e := newEmitter(partConnect)
	e.rule("", protocolTerm(protoUDP)[0], jumpTo(nft.VerdictJump, chainAnswers))
	l.bind(e, source, viewConnect, rejectVerdict)
	l.list(e, model.Connect, viewConnect, jumpTo(nft.VerdictGoto, chainPass), rejectVerdict)
	return e
}

// local is asked in input about packets from lo, once the accepting end has
// been asked. It returns what it allows.
func (l *lowering) local() *emitter {
	e := newEmitter(partLocal)
	e.returning = true
	l.bind(e, source, viewLocal, rejectVerdict)
	if l.namesPeers(model.Connect) {
		// The priority said who connects, which is known by being here. From
		// now on it says who receives.
		e.rule("", jumpTo(nft.VerdictJump, chainReceiver))
	}
	l.list(e, model.Connect, viewLocal, nft.Verdict{Kind: nft.VerdictReturn}, rejectVerdict)
	return e
}

// accept is asked in input about packets that another namespace, an unmanaged
// socket or another machine sent.
func (l *lowering) accept() *emitter {
	e := newEmitter(partAccept)
	e.rule("", protocolTerm(protoUDP)[0], jumpTo(nft.VerdictJump, chainAnswers))
	l.bind(e, destination, viewAccept, refuseVerdict)
	l.list(e, model.Accept, viewAccept, jumpTo(nft.VerdictGoto, chainAdmit), refuseVerdict)
	return e
}

// self is asked in input about packets from lo whose sender and receiver are
// both in the namespace. It is nil if it would allow everything.
func (l *lowering) self() *emitter {
	e := newEmitter(partSelf)
	e.rule("", protocolTerm(protoUDP)[0], jumpTo(nft.VerdictJump, chainAnswers))
	l.bind(e, source, viewSelf, rejectVerdict)
	accepting := e.reserve()
	refuses := l.selfList(e, model.Connect, jumpTo(nft.VerdictGoto, accepting.Name))
	e.cur = accepting
	l.bind(e, destination, viewSelf, rejectVerdict)
	refuses = l.selfList(e, model.Accept, jumpTo(nft.VerdictGoto, chainPass)) || refuses
	if !refuses && !l.bindMatters() {
		return nil
	}
	return e
}

// refusal makes the verdict for an error.
type refusal func(model.Errno) nft.Statement

func rejectVerdict(e model.Errno) nft.Statement { return jumpTo(nft.VerdictGoto, rejectChain(e)) }
func refuseVerdict(e model.Errno) nft.Statement { return jumpTo(nft.VerdictGoto, refuseChain(e)) }

// deny returns the verdict that refuses, or in audit mode the one that lets
// pass and the log line of what enforcing would have refused.
func (l *lowering) deny(what string, errno model.Errno, refuse refusal, allow nft.Statement) (log []nft.Statement, verdict nft.Statement) {
	if l.audit {
		return l.auditLog(what, errno), allow
	}
	return nil, refuse(errno)
}

// auditLog returns the log line of what enforcing would have refused.
func (l *lowering) auditLog(what string, errno model.Errno) []nft.Statement {
	return logStatements(fmt.Sprintf("sockns audit %s %s %s ", l.n.Name, what, errno))
}

// ruleLog returns the log line of a rule's decision; that of audit mode,
// which is given, stands for it.
func (l *lowering) ruleLog(r *model.Rule, what string, audit []nft.Statement) []nft.Statement {
	if !r.Log || audit != nil {
		return audit
	}
	return logStatements(fmt.Sprintf("sockns %s %s %s ", r.Action, l.n.Name, what))
}

// list writes a connect or accept list with its default.
func (l *lowering) list(e *emitter, h model.Hook, v view, allow nft.Statement, refuse refusal) {
	rules := l.n.Rules(h)
	for i := range rules {
		if l.rule(e, &rules[i], v, allow, refuse) {
			return
		}
	}
	errno, denies := defaultOf(l.n, h)
	verdict := allow
	if denies {
		var log []nft.Statement
		if log, verdict = l.deny(h.String(), errno, refuse, allow); log != nil {
			e.rule("", log...)
		}
	}
	e.rule(defaultComment(l.n, h), nft.Counter{}, verdict)
}

// selfList writes the rules of a list that can speak of the namespace itself,
// and reports whether one of them refuses. The namespace reaches itself by default.
func (l *lowering) selfList(e *emitter, h model.Hook, allow nft.Statement) (refuses bool) {
	rules := l.n.Rules(h)
	for i := range rules {
		r := &rules[i]
		if r.Action == model.Deny && len(l.peerTerms(l.n, r, viewSelf)) > 0 {
			refuses = true
		}
		if l.rule(e, r, viewSelf, allow, rejectVerdict) {
			return refuses
		}
	}
	e.rule("", allow)
	return refuses
}

// rule writes one rule and reports whether nothing can come after it.
func (l *lowering) rule(e *emitter, r *model.Rule, v view, allow nft.Statement, refuse refusal) (total bool) {
	s := source
	if r.Hook == model.Accept {
		s = destination
	}
	dims := [][]term{
		portTerms(r.Protocols, r.Ports, destination, v.transportOnly()),
		l.localTerms(l.n, r, s, v == viewLocal || v == viewSelf, !l.bindsElsewhere()),
		l.peerTerms(l.n, r, v),
	}
	for _, d := range dims {
		if len(d) == 0 {
			return false
		}
	}
	what := fmt.Sprintf("%s#%d", r.Hook, r.Index)
	verdict := allow
	var log []nft.Statement
	if r.Audit {
		e.clause(dims, l.comment(r), l.auditLog(what, errnoOr(r.Error, model.ECONNREFUSED)), nft.Counter{})
		return false
	}
	if r.Action == model.Deny {
		log, verdict = l.deny(what, errnoOr(r.Error, model.ECONNREFUSED), refuse, allow)
	}
	e.clause(dims, l.comment(r), l.ruleLog(r, what, log), nft.Counter{}, verdict)
	for _, d := range dims {
		if len(d) != 1 || len(d[0]) != 0 {
			return false
		}
	}
	return true
}

// bind writes the check of the packet's local address and port. Packets do not
// say whether a port was asked for or picked by the kernel, so a port that the
// kernel may pick is refused by an explicit rule only.
func (l *lowering) bind(e *emitter, s side, v view, refuse refusal) {
	if !l.bindMatters() {
		return
	}
	ok := e.reserve()
	e.depth++
	pass := jumpTo(nft.VerdictGoto, ok.Name)
	onLoopback := v == viewLocal || v == viewSelf
	own := ownTerms(l.n, s, onLoopback)
	for i := range l.n.Bind {
		r := &l.n.Bind[i]
		dims := [][]term{
			portTerms(r.Protocols, r.Ports, s, v.transportOnly()),
			l.localTerms(l.n, r, s, onLoopback, false),
		}
		what := fmt.Sprintf("bind#%d", r.Index)
		var verdict nft.Statement = pass
		var log, tail []nft.Statement
		if r.Audit {
			e.clause(dims, l.comment(r), l.auditLog(what, model.ECONNREFUSED), nft.Counter{})
			continue
		}
		if r.Action == model.Deny {
			log, verdict = l.deny(what, model.ECONNREFUSED, refuse, pass)
			tail = append(tail, nft.Counter{})
		}
		e.clause(dims, l.comment(r), l.ruleLog(r, what, log), append(tail, verdict)...)
	}
	if bindDefaultDenies(l.n) {
		ports := portTerms(nil, l.ephemeral(), s, v.transportOnly())
		if !v.transportOnly() {
			ports = append(ports, protocolTerm(protoICMP), protocolTerm(protoICMPv6))
		}
		e.clause([][]term{ports, own}, "", nil, pass)
	} else {
		e.clause([][]term{own}, "", nil, pass)
	}
	log, verdict := l.deny("bind", model.ECONNREFUSED, refuse, pass)
	if log != nil {
		e.rule("", log...)
	}
	e.rule(defaultComment(l.n, model.Bind), nft.Counter{}, verdict)
	e.cur = ok
}

// bindMatters reports whether the namespace limits its local addresses or ports.
func (l *lowering) bindMatters() bool {
	if len(l.n.Addresses) > 0 || bindDefaultDenies(l.n) {
		return true
	}
	for i := range l.n.Bind {
		if l.n.Bind[i].Action == model.Deny {
			return true
		}
	}
	return false
}

func bindDefaultDenies(n *model.SocketNamespace) bool {
	if d := n.Default.Bind; d != nil {
		return d.Action == model.Deny
	}
	return len(n.Bind) > 0
}

// bindsElsewhere reports whether a bind rule allows addresses that are not the
// namespace's own; if none does, what passed the bind check is its own.
func (l *lowering) bindsElsewhere() bool {
	for i := range l.n.Bind {
		if l.n.Bind[i].Action == model.Allow && len(l.n.Bind[i].Local) > 0 {
			return true
		}
	}
	return false
}

// namesPeers reports whether a rule of the hook asks for an identity.
func (l *lowering) namesPeers(h model.Hook) bool {
	for _, r := range l.n.Rules(h) {
		for _, p := range r.Peers {
			if p.Kind == model.PeerNamespace || p.Kind == model.PeerUnmanaged {
				return true
			}
		}
	}
	return false
}

// defaultOf returns what decides after the last rule of a connect or accept list.
func defaultOf(n *model.SocketNamespace, h model.Hook) (model.Errno, bool) {
	d := n.Default.For(h)
	if d == nil {
		return model.ECONNREFUSED, true
	}
	return errnoOr(d.Error, model.ECONNREFUSED), d.Action == model.Deny
}

func errnoOr(e, otherwise model.Errno) model.Errno {
	if e == "" {
		return otherwise
	}
	return e
}
