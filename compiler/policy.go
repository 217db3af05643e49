package compiler

import (
	"crypto/sha256"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// The chains that all policies end in; see assemble.go.
const (
	chainPass    = "pass"    // remember where a datagram's answer may come from, accept
	chainDone    = "done"    // accept
	chainAdmit   = "admit"   // the accepting end allows: ask the connecting end, then pass; with variants for each transport
	chainSender  = "sender"  // ask the connecting end, where there are templates
	chainAnswers = "answers" // accept the answer to a datagram that passed
	chainSame    = "same"    // packets between two sockets of one namespace: by its own rules
	chainWhose   = "whose"   // put the identity of the packet's socket into the priority
)

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
	// apart says that the accept list is one for each transport.
	apart   bool
	endings map[ending]bool     // of its refusals
	lists   map[string]*nft.Set // sets of the lists that its rules name
	asks    []nft.Statement     // matches of sets, each once
	parts   []string            // relative names of the chains
	sum     [sha256.Size]byte   // of the content
	form    [sha256.Size]byte   // of the content, but for what groups hold
	name    string              // set by share
}

// lowering is the work on one socket namespace.
type lowering struct {
	*resolver
	n       *model.SocketNamespace
	audit   bool
	endings map[ending]bool
	sets    map[string]*nft.Set // of lists, by name
	holds   map[string]string   // the groups whose lists they are
	open    questions
	within  transports // that packets are known to be of here; see transports.go
	// lost says that the rule being written has the receiver's identity in the
	// priority, where the sender's was.
	lost     bool
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
	l := &lowering{resolver: r, n: n, within: anyTransport, audit: n.Mode == model.Audit, endings: make(map[ending]bool), sets: make(map[string]*nft.Set), holds: make(map[string]string), comments: make(map[*model.Rule]string)}
	c := &chains{endings: l.endings}
	accepting, apart := l.accept()
	for _, part := range []*emitter{l.connect(), l.local(), accepting} {
		c.list = append(c.list, part.chains...)
	}
	c.apart = apart
	if self := l.self(); self != nil {
		c.list = append(c.list, self.chains...)
	} else {
		c.selfFree = true
	}
	content := appendContent(make([]byte, 0, 4<<10), c, nil)
	c.sum = sha256.Sum256(content)
	if c.form = c.sum; len(l.holds) > 0 {
		c.form = sha256.Sum256(appendContent(content[:0], c, l.holds))
	}
	c.sets()
	c.lists = used(l.sets, c.asks)
	c.clip()
	return c
}

// connect is asked in output about packets that do not leave through lo.
func (l *lowering) connect() *emitter {
	e := newEmitter(partConnect)
	l.first(questions{answers: true})
	l.bind(e, source, viewConnect, EndOut)
	l.first(questions{answers: true})
	l.list(e, model.Connect, viewConnect, jumpTo(nft.VerdictGoto, chainPass), EndOut)
	return e
}

// local is asked in input about packets from lo, once the accepting end has
// been asked. It returns what it allows.
func (l *lowering) local() *emitter {
	e := newEmitter(partLocal)
	e.returning = true
	free := l.selfFree()
	if free != (transports{}) {
		e.depth++ // to chainSame, and by the lists of any namespace
	}
	l.eachTransport(e, model.Connect, false, func() {
		l.first(questions{answers: true, same: free})
		l.bind(e, source, viewLocal, EndFrom)
		// The priority says who connects, which is known by being here. Once
		// chainWhose was asked it says who receives.
		l.first(questions{answers: true, same: free, receiver: true})
		l.list(e, model.Connect, viewLocal, nft.Verdict{Kind: nft.VerdictReturn}, EndFrom)
		l.lost = false
	})
	return e
}

// accept is asked in input about packets that another namespace, an unmanaged
// socket or another machine sent.
func (l *lowering) accept() (e *emitter, split bool) {
	e = newEmitter(partAccept)
	free := l.selfFree()
	split = l.eachTransport(e, model.Accept, true, func() {
		l.first(questions{same: anyTransport.not(free)})
		l.ask(e, anyTransport, toRefuse)
		l.first(questions{answers: true, same: free})
		l.bind(e, destination, viewAccept, EndTo)
		l.first(questions{answers: true, same: free})
		l.list(e, model.Accept, viewAccept, jumpTo(nft.VerdictGoto, chainAdmit+l.within.suffix()), EndTo)
	})
	return e, split
}

// self is asked in input about packets from lo whose sender and receiver are
// both in the namespace. It is nil if it would allow everything.
func (l *lowering) self() *emitter {
	free := l.selfFree()
	if free == anyTransport {
		return nil
	}
	e := newEmitter(partSelf)
	e.flat = true // the longest way of all ends here
	if t, some := free.term(anyTransport); some {
		e.rule("", append(t, jumpTo(nft.VerdictGoto, chainDone))...)
	}
	if !free.udp {
		e.rule("", append(protocolTerm(protoUDP), jumpTo(nft.VerdictJump, chainAnswers))...)
	}
	l.first(questions{})
	l.bind(e, source, viewSelf, EndFrom)
	if len(l.selfRules(model.Connect)) > 0 {
		accepting := e.reserve()
		l.selfList(e, model.Connect, jumpTo(nft.VerdictGoto, accepting.Name))
		e.cur = accepting
	}
	l.bind(e, destination, viewSelf, EndFrom)
	l.selfList(e, model.Accept, jumpTo(nft.VerdictGoto, chainPass))
	return e
}

// deny returns what refuses at an end, or in audit mode what tells of it and
// lets pass.
func (l *lowering) deny(end End, h model.Hook, rule int, errno model.Errno, allow nft.Statement) (log, tail []nft.Statement) {
	if l.audit {
		return l.log(Audited, end, h, rule, errno), []nft.Statement{allow}
	}
	at := ending{end, h, rule, errno}
	if l.lost {
		at.end = EndOf
		tail = append(tail, nft.SetMark{}) // share writes whose
	}
	l.endings[at] = true
	return nil, append(tail, jumpTo(nft.VerdictGoto, at.chain()))
}

// log returns the statements that tell of a packet that lives on, at a bounded rate.
func (l *lowering) log(o Outcome, end End, h model.Hook, rule int, errno model.Errno) []nft.Statement {
	prefix := Prefix{Outcome: o, Namespace: l.n.Name, End: end, Hook: h, Rule: rule, Errno: errno}
	return []nft.Statement{nft.Limit{Rate: reportedRate, Burst: reportedBurst}, nft.Log{Prefix: prefix.String(), Group: LogGroup}}
}

// decide returns what a rule of a hook does to the packets that it matches:
// what it logs, and what follows. Nothing but a count follows from a denial in audit.
func (l *lowering) decide(r *model.Rule, end End, errno model.Errno, allow nft.Statement) (log, tail []nft.Statement) {
	switch {
	case r.Audit:
		return l.log(Audited, end, r.Hook, r.Index, errno), nil
	case r.Action == model.Deny:
		return l.deny(end, r.Hook, r.Index, errno, allow)
	case r.Log:
		return l.log(Allowed, end, r.Hook, r.Index, ""), []nft.Statement{allow}
	}
	return nil, []nft.Statement{allow}
}

// list writes a connect or accept list with its default.
func (l *lowering) list(e *emitter, h model.Hook, v view, allow nft.Statement, end End) {
	rules := l.n.Rules(h)
	l.early(e, rules)
	for i := range rules {
		if l.rule(e, &rules[i], v, allow, end) {
			return
		}
	}
	errno, denies := defaultOf(l.n, h)
	tail := []nft.Statement{allow}
	if denies {
		var log []nft.Statement
		l.ask(e, anyTransport, toRefuse)
		if log, tail = l.deny(end, h, 0, errno, allow); log != nil {
			e.rule("", log...)
		}
	} else if v.remembers() {
		l.ask(e, anyTransport, toRemember)
	}
	e.rule(defaultComment(l.n, h), append([]nft.Statement{counter}, tail...)...)
}

// selfList writes the rules of a list that can speak of the namespace itself.
// The namespace reaches itself by default.
func (l *lowering) selfList(e *emitter, h model.Hook, allow nft.Statement) {
	rules := l.selfRules(h)
	for i := range rules {
		if l.rule(e, &rules[i], viewSelf, allow, EndFrom) {
			return
		}
	}
	e.rule("", allow)
}

// selfRules returns the rules of a list up to the last one that refuses or tells of
// what the namespace sends to itself: the others only allow, as the default does.
func (l *lowering) selfRules(h model.Hook) []model.Rule {
	rules := l.n.Rules(h)
	for n := len(rules); n > 0; n-- {
		if l.mattersToSelf(&rules[n-1]) || !l.passes.has(PassDead) {
			return rules[:n]
		}
	}
	return nil
}

// portTerms returns the matches for protocols and ports as they are asked in a view.
func (l *lowering) portTerms(protocols []model.Protocol, ports []model.PortRange, s side, v view) []term {
	if l.passes.has(PassMerge) {
		ports = mergePorts(ports)
	}
	within := l.within
	if v == viewConnect { // all protocols get there
		within = transports{}
	}
	terms, rest := l.portSets(protocols, ports, s, within)
	if terms != nil && len(rest) == 0 {
		return terms
	}
	return append(terms, portTerms(protocols, rest, s, within)...)
}

// counter is in most rules; one value does for all.
var counter nft.Statement = nft.Counter{}

// rule writes one rule and reports whether nothing can come after it.
func (l *lowering) rule(e *emitter, r *model.Rule, v view, allow nft.Statement, end End) (total bool) {
	s := source
	if r.Hook == model.Accept {
		s = destination
	}
	dims := [][]term{
		l.portTerms(r.Protocols, r.Ports, destination, v),
		l.localTerms(l.n, r, s, v == viewLocal || v == viewSelf, !l.bindsElsewhere()),
		l.peerTerms(l.n, r, v),
	}
	for _, d := range dims {
		if len(d) == 0 {
			return false
		}
	}
	l.askFor(e, r, v)
	log, tail := l.decide(r, end, errnoOr(r.Error, model.ECONNREFUSED), allow)
	e.clause(dims, l.comment(r), log, append([]nft.Statement{counter}, tail...)...)
	if r.Audit || !l.passes.has(PassDead) {
		return false
	}
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
func (l *lowering) bind(e *emitter, s side, v view, end End) {
	if !l.bindMatters() {
		return
	}
	ok := e.reserve()
	e.depth++
	pass := jumpTo(nft.VerdictGoto, ok.Name)
	onLoopback := v == viewLocal || v == viewSelf
	own := l.ownTerms(l.n, s, onLoopback)
	for i := range l.n.Bind {
		r := &l.n.Bind[i]
		dims := [][]term{
			l.portTerms(r.Protocols, r.Ports, s, v),
			l.localTerms(l.n, r, s, onLoopback, false),
		}
		if len(dims[0]) == 0 || len(dims[1]) == 0 {
			continue // it matches nothing here: nor does it end anywhere
		}
		if r.Action == model.Deny {
			l.ask(e, transportsOf(r.Protocols), toRefuse)
		}
		log, tail := l.decide(r, end, model.ECONNREFUSED, pass)
		if r.Action == model.Deny || r.Log {
			tail = append([]nft.Statement{counter}, tail...)
		}
		e.clause(dims, l.comment(r), log, tail...)
	}
	if bindDefaultDenies(l.n) {
		ports := l.portTerms(nil, l.ephemeral(), s, v)
		if v == viewConnect {
			ports = append(ports, protocolTerm(protoICMP), protocolTerm(protoICMPv6))
		}
		e.clause([][]term{ports, own}, "", nil, pass)
	} else {
		e.clause([][]term{own}, "", nil, pass)
	}
	l.ask(e, anyTransport, toRefuse)
	log, tail := l.deny(end, model.Bind, 0, model.ECONNREFUSED, pass)
	if log != nil {
		e.rule("", log...)
	}
	e.rule(defaultComment(l.n, model.Bind), append([]nft.Statement{counter}, tail...)...)
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
