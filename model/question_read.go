package model

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// questionReader reads one question, word by word.
type questionReader struct {
	policy *Policy
	words  []word
	last   word // the one that was read last

	who   word // who acts
	from  End
	to    *End // who listens, if it is named
	toAt  word
	proto Protocol
	addr  netip.Addr
	port  *uint16
	at    word // of the traffic
}

func (r *questionReader) next() (word, bool) {
	if len(r.words) == 0 {
		// A mistake of what is missing is told at the end.
		return word{"", r.last.column + len(r.last.text)}, false
	}
	r.last, r.words = r.words[0], r.words[1:]
	return r.last, true
}

func (r *questionReader) question() (Question, error) {
	var ok bool
	if r.who, ok = r.next(); !ok {
		return Question{}, word{column: 1}.failed("the flow is empty: write as `web connect db tcp/5432` or `web bind tcp 0.0.0.0:80`")
	}
	var err error
	if r.from, err = r.end(r.who); err != nil {
		return Question{}, err
	}
	verb, ok := r.next()
	if ok && verb.text == "in" {
		if err := r.in(&r.from, verb); err != nil {
			return Question{}, err
		}
		verb, ok = r.next()
	}
	switch {
	case !ok:
		return Question{}, verb.failed("what %s does is missing: connect or bind", r.who.text)
	case verb.text == "connect":
		return r.connect()
	case verb.text == "bind":
		return r.bind()
	case verb.text == "accept":
		return Question{}, verb.failed("a flow is told from the end that connects: OTHER connect %s ...", r.who.text)
	}
	return Question{}, verb.failed("%q is nothing that can be asked%s (allowed: connect, bind)", verb.text, suggest(verb.text, []string{"connect", "bind"}))
}

// end reads who an end is.
func (r *questionReader) end(w word) (End, error) {
	name, instance, _ := strings.Cut(w.text, "/")
	if n := r.policy.Namespace(name); n != nil {
		if err := r.instance(w, n, instance); err != nil {
			return End{}, err
		}
		return End{Namespace: w.text, Device: n.Device}, nil
	}
	switch {
	case w.text == "unmanaged":
		return End{Device: HostDevice}, nil
	case w.text == "any" || w.text == "self":
		return End{}, w.failed("%s is not who acts: name a socket namespace, unmanaged, or the address of another machine", w.text)
	case r.policy.Group(w.text) != nil:
		return End{}, w.failed("%s is a group of addresses: write one of them", w.text)
	}
	if addr, err := parseAddress(w.text); err == nil {
		return End{Address: netip.AddrPortFrom(addr, 0)}, nil
	}
	if !isName(name) {
		return End{}, w.failed("%q is neither a socket namespace nor an address", w.text)
	}
	return End{}, w.failed("socket namespace %q is not declared%s", name, suggest(name, r.names()))
}

// names lists whom a question can name.
func (r *questionReader) names() []string {
	names := []string{"unmanaged"}
	for i := range r.policy.SocketNamespaces {
		names = append(names, r.policy.SocketNamespaces[i].Name)
	}
	return names
}

// instance checks what comes behind the name of a namespace.
func (r *questionReader) instance(w word, n *SocketNamespace, instance string) error {
	wildcards := strings.Count(n.Each, "*")
	parts := 0
	if instance != "" {
		parts = strings.Count(instance, "/") + 1
	}
	switch {
	case parts == wildcards && !strings.Contains("/"+instance+"/", "//") == (instance != ""):
		return nil
	case wildcards == 0:
		return w.failed("socket namespace %s is no template and has no instances: write %s", n.Name, n.Name)
	}
	return w.failed("%s is a template (%s): name one of its instances, as %s", n.Name, n.Each, n.Name+strings.Repeat("/1000", wildcards))
}

// in reads the device namespace of an unmanaged end.
func (r *questionReader) in(e *End, in word) error {
	if e.Namespace != "" || e.Device == "" {
		return in.failed("only unmanaged sockets are said to be in a device namespace: a socket namespace is in the one of the policy")
	}
	w, ok := r.next()
	if !ok {
		return w.failed("the device namespace is missing after in")
	}
	if r.policy.Device(w.text) == nil {
		var names []string
		for _, d := range r.policy.DeviceNamespaces {
			names = append(names, d.Name)
		}
		return w.failed("device namespace %q is not declared%s (declared: %s)", w.text, suggest(w.text, names), oneOf(names))
	}
	e.Device = w.text
	return nil
}

// connect reads the rest of a question about a flow.
func (r *questionReader) connect() (Question, error) {
	for {
		w, ok := r.next()
		if !ok {
			return r.flow(w)
		}
		var err error
		switch {
		case w.text == "from":
			err = r.source(w)
		case w.text == "in" && r.to != nil:
			err = r.in(r.to, w)
		default:
			err = r.word(w, true)
		}
		if err != nil {
			return Question{}, err
		}
	}
}

// bind reads the rest of a question about a bind.
func (r *questionReader) bind() (Question, error) {
	if r.from.Device == "" {
		return Question{}, r.who.failed("%s is another machine: what is bound there is not this policy's", r.who.text)
	}
	for {
		w, ok := r.next()
		if !ok {
			if err := r.complete(w); err != nil {
				return Question{}, err
			}
			break
		}
		if err := r.word(w, false); err != nil {
			return Question{}, err
		}
	}
	q := Question{Hook: Bind, Flow: Flow{Protocol: r.proto, From: r.from}}
	addr := r.addr
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	q.Flow.From.Address = netip.AddrPortFrom(addr, *r.port)
	return q, nil
}

// word reads a word of what comes after connect or bind.
func (r *questionReader) word(w word, connects bool) error {
	head, tail, both := strings.Cut(w.text, "/")
	for _, proto := range Protocols {
		if head != string(proto) {
			continue
		}
		if r.proto != "" {
			return w.failed("the protocol is there twice: keep one")
		}
		r.proto, r.at = proto, w
		if both {
			return r.setPort(w, tail)
		}
		return nil
	}
	if looksLikeAddress(w.text) {
		return r.address(w)
	}
	if !connects {
		return w.failed("%q is neither a protocol nor an address: write as tcp 0.0.0.0:80 or tcp/80%s", w.text, suggest(head, protocolNames()))
	}
	if _, err := strconv.ParseUint(tail, 10, 16); err == nil && r.policy.Namespace(head) == nil {
		return w.failed("unknown protocol %q%s (allowed: %s)", head, suggest(head, protocolNames()), oneOf(protocolNames()))
	}
	if r.to != nil {
		return w.failed("%q: who listens was named before, as %s", w.text, r.toAt.text)
	}
	to := r.from
	if w.text != "self" || r.from.Namespace == "" {
		var err error
		if to, err = r.end(w); err != nil {
			return err
		}
	}
	r.to, r.toAt = &to, w
	return nil
}

func protocolNames() []string {
	var names []string
	for _, p := range Protocols {
		names = append(names, string(p))
	}
	return names
}

// looksLikeAddress reports whether a word can only be an address: names begin
// with a letter and have no colon.
func looksLikeAddress(s string) bool {
	return strings.ContainsAny(s, ":[") || s[0] >= '0' && s[0] <= '9'
}

// address reads an address with or without a port.
func (r *questionReader) address(w word) error {
	if r.addr.IsValid() {
		return w.failed("the address is there twice: keep one")
	}
	r.at = w
	if addr, err := parseAddress(strings.Trim(w.text, "[]")); err == nil {
		r.addr = addr
		return nil
	}
	colon := strings.LastIndexByte(w.text, ':')
	if colon < 0 {
		return w.failed("%q is not an address: write as 10.0.0.1:80 or [2001:db8::1]:80", w.text)
	}
	addr, err := parseAddress(strings.Trim(w.text[:colon], "[]"))
	if err != nil {
		return w.failed("%q: %v; write as 10.0.0.1:80 or [2001:db8::1]:80", w.text, err)
	}
	r.addr = addr
	return r.setPort(w, w.text[colon+1:])
}

func (r *questionReader) setPort(w word, s string) error {
	port, err := parsePort(s)
	if err != nil {
		return w.failed("port %q; it has to be a number from 0 to 65535", s)
	}
	if r.port != nil && *r.port != port {
		return w.failed("port %d and port %d: keep one", *r.port, port)
	}
	r.port = &port
	return nil
}

// source reads the address that the connecting socket has.
func (r *questionReader) source(from word) error {
	w, ok := r.next()
	if !ok {
		return w.failed("the address is missing after from")
	}
	if r.from.Address.Addr().IsValid() {
		return from.failed("the source is there twice: keep one")
	}
	if addr, err := parseAddress(w.text); err == nil {
		r.from.Address = netip.AddrPortFrom(addr, 0)
		return nil
	}
	at, err := netip.ParseAddrPort(w.text)
	if err != nil {
		return w.failed("%q is not an address: write as from 10.1.2.3 or from 10.1.2.3:40000", w.text)
	}
	r.from.Address = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	return nil
}

// complete checks protocol and port.
func (r *questionReader) complete(end word) error {
	switch {
	case r.proto == "":
		return end.failed("the protocol is missing: write as tcp/80 or tcp 10.0.0.1:80 (allowed: %s)", oneOf(protocolNames()))
	case !r.proto.HasPorts() && r.port != nil && *r.port != 0:
		return r.at.failed("%s has no ports: leave the port out", r.proto)
	case !r.proto.HasPorts():
		r.port = new(uint16)
	case r.port == nil:
		return end.failed("the port is missing: write as %s/80", r.proto)
	}
	return nil
}

// flow fills in what was left out.
func (r *questionReader) flow(end word) (Question, error) {
	if err := r.complete(end); err != nil {
		return Question{}, err
	}
	if *r.port == 0 && r.proto.HasPorts() {
		return Question{}, r.at.failed("nobody listens on port 0: write a port from 1 to 65535")
	}
	if r.to == nil && !r.addr.IsValid() {
		return Question{}, end.failed("where to is missing: name a socket namespace, an address, or both")
	}
	q := Question{Hook: Connect, Flow: Flow{Protocol: r.proto, From: r.from}}
	assume := func(format string, args ...any) { q.Assumed = append(q.Assumed, fmt.Sprintf(format, args...)) }
	if err := r.destination(&q.Flow, assume); err != nil {
		return Question{}, err
	}
	if a := q.Flow.To.Address.Addr(); a.IsLoopback() && q.Flow.From.Device != q.Flow.To.Device {
		return Question{}, r.at.failed("%s is not reached from another device namespace or machine: give another address", a)
	}
	if a, b := q.Flow.From.Address.Addr(), q.Flow.To.Address.Addr(); a.IsValid() && b.IsValid() && a.BitLen() != b.BitLen() {
		return Question{}, r.at.failed("%s and %s are of different families", a, b)
	}
	if q.Flow.From.Device != "" && !q.Flow.From.Address.Addr().IsValid() {
		q.Flow.From.Picked = r.policy.sourceOf(q.Flow, assume)
	}
	return q, nil
}
