package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

func (r *reader) rules(h Hook, v *yaml.Node) []Rule {
	items := r.items(v, h.String(), false)
	list := slices.Grow([]Rule(nil), len(items))
	for _, n := range items {
		list = append(list, r.rule(h, len(list)+1, n))
	}
	return list
}

func (r *reader) rule(h Hook, index int, n *yaml.Node) Rule {
	rule := Rule{Hook: h, Index: index, Action: Allow, Pos: r.at(n)}
	what := [...]string{"a bind rule", "a connect rule", "an accept rule"}[h]
	r.wrongDirection(h, n)
	var errnoAt, portsAt, auditAt *yaml.Node
	r.fields(n, what, hookKeys[h], func(name string, k, v *yaml.Node) {
		switch name {
		case "action":
			if s, ok := r.word(v, name, string(Allow), string(Deny)); ok {
				rule.Action = Action(s)
			}
		case "error":
			errnoAt = k
			rule.Error = r.errno(h, v)
		case "protocol":
			rule.Protocols = r.protocols(v)
		case "ports":
			portsAt = k
			rule.Ports = r.ports(v)
		case "local":
			rule.Local = r.peers(v, name)
			r.checkLocal(rule.Local)
		case "to", "from":
			rule.Peers = r.peers(v, name)
		case "log":
			rule.Log = r.boolean(v, name)
		case "audit":
			auditAt = k
			rule.Audit = r.boolean(v, name)
		}
	})
	if errnoAt != nil && rule.Action == Allow {
		r.errorf(r.at(errnoAt), "error without a denial: add action: deny, or remove error")
	}
	if rule.Audit && rule.Action == Allow {
		r.errorf(r.at(auditAt), "audit of a rule that allows: it says what a denial would refuse; add action: deny, or write log: true")
	}
	if portsAt != nil {
		for _, p := range rule.Protocols {
			if !p.HasPorts() {
				r.errorf(r.at(portsAt), "ports with protocol %s, which has none: write a rule of its own for %s", p, p)
			}
		}
	}
	return rule
}

// boolean reads true or false; anything else is an error.
func (r *reader) boolean(v *yaml.Node, name string) bool {
	b := r.node(v)
	if b == nil {
		return false
	}
	if b.Kind != yaml.ScalarNode || b.Tag != "!!bool" {
		r.errorf(r.at(b), "%s is %s; it has to be true or false", name, kind(b))
		return false
	}
	return b.Value == "true" || b.Value == "True" || b.Value == "TRUE"
}

// wrongDirection says it better than "unknown key" if to and from are swapped.
func (r *reader) wrongDirection(h Hook, n *yaml.Node) {
	n = r.node(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case k.Value == "from" && h == Connect:
			r.errorf(r.at(k), `a connect rule names its peers with "to", not "from"`)
		case k.Value == "to" && h == Accept:
			r.errorf(r.at(k), `an accept rule names its peers with "from", not "to"`)
		case (k.Value == "to" || k.Value == "from") && h == Bind:
			r.errorf(r.at(k), "a bind rule has no peers: name local addresses with local, and peers in connect and accept rules")
		default:
			continue
		}
		r.explained[k] = true
	}
}

// The words of the errors of each hook, and of the protocols.
var hookErrorNames, protocolWords = func() (names [len(Hooks)][]string, protocols []string) {
	for h, errors := range HookErrors {
		for _, e := range errors {
			names[h] = append(names[h], string(e))
		}
	}
	for _, p := range Protocols {
		protocols = append(protocols, string(p))
	}
	return names, protocols
}()

func (r *reader) errno(h Hook, v *yaml.Node) Errno {
	s, _ := r.word(v, "error of "+h.String(), hookErrorNames[h]...)
	return Errno(s)
}

func (r *reader) protocols(v *yaml.Node) []Protocol {
	items := r.items(v, "protocol", true)
	list := slices.Grow([]Protocol(nil), len(items))
	for _, n := range items {
		s, ok := r.word(n, "protocol", protocolWords...)
		if !ok {
			continue
		}
		if slices.Contains(list, Protocol(s)) {
			r.errorf(r.at(n), "protocol %s is there twice: keep one", s)
			continue
		}
		list = append(list, Protocol(s))
	}
	return sharedProtocols(list)
}

// sharedProtocols returns a list of protocols in the memory that all lists of the
// same share, if there is: most name one, or tcp and udp.
func sharedProtocols(list []Protocol) []Protocol {
	for i := range Protocols {
		if end := i + len(list); i < end && end <= len(Protocols) && slices.Equal(list, Protocols[i:end]) {
			return Protocols[i:end:end]
		}
	}
	return list
}

func (r *reader) ports(v *yaml.Node) []PortRange {
	items := r.items(v, "ports", true)
	list := slices.Grow([]PortRange(nil), len(items))
	for _, n := range items {
		s, ok := r.text(n, "a port")
		if !ok {
			continue
		}
		first, last, isRange := strings.Cut(s, "-")
		if !isRange {
			last = first
		}
		a, errA := parsePort(first)
		b, errB := parsePort(last)
		switch {
		case errA != nil || errB != nil:
			r.errorf(r.at(n), "port %q; it has to be a number from 1 to 65535 or a range as 8000-8080", s)
		case a == 0 || b == 0:
			r.errorf(r.at(n), "port 0 is the kernel's choice and needs no rule; ports are 1 to 65535")
		case leadingZero(first) || leadingZero(last):
			r.errorf(r.at(n), "port %q begins with 0, which some read as octal: write it without", s)
		case a > b:
			r.errorf(r.at(n), "port range %q ends before it begins: write %d-%d", s, b, a)
		default:
			list = append(list, PortRange{a, b})
		}
	}
	return list
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
	return uint16(n), err
}

func leadingZero(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), "0") }

// peers reads one or a list of peers. Names are resolved when all files were read.
func (r *reader) peers(v *yaml.Node, key string) []Peer {
	items := r.items(v, key, true)
	list := slices.Grow([]Peer(nil), len(items))
	for _, n := range items {
		s, ok := r.text(n, key)
		if !ok {
			continue
		}
		p := Peer{Pos: r.at(n)}
		switch {
		case s == "any":
			p.Kind = PeerAny
		case s == "self":
			p.Kind = PeerSelf
		case s == "unmanaged":
			p.Kind = PeerUnmanaged
		case isName(s):
			p.Kind, p.Name = PeerNamespace, s // or PeerGroup; see check
		case strings.Contains(s, "/") && isName(s[:strings.IndexByte(s, '/')]):
			r.errorf(p.Pos, "%q names one instance of a template: a template's name (%s) means all of them, self the same one", s, s[:strings.IndexByte(s, '/')])
			continue
		default:
			a, err := parseAddresses(s)
			if err != nil {
				r.errorf(p.Pos, "%s is %q: %v; a peer is any, self, unmanaged, an address, a CIDR, a range, or the name of a group or socket namespace", key, s, err)
				continue
			}
			p.Kind, p.Address = PeerAddress, a
		}
		list = append(list, p)
	}
	return list
}

func (r *reader) checkLocal(list []Peer) {
	for _, p := range list {
		if p.Kind == PeerUnmanaged {
			r.errorf(p.Pos, "local is unmanaged, which has no addresses of its own: name addresses, a group or a namespace")
		}
	}
}

// address reads an address, a CIDR or a range.
func (r *reader) address(n *yaml.Node, what string) (AddressRange, bool) {
	s, ok := r.text(n, "an address of "+what)
	if !ok {
		return AddressRange{}, false
	}
	a, err := parseAddresses(s)
	if err != nil {
		r.errorf(r.at(n), "%s has %q: %v; it holds addresses, CIDRs and ranges", what, s, err)
		return a, false
	}
	return a, true
}

// parseAddresses parses an address, a CIDR or first-last.
func parseAddresses(s string) (AddressRange, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := parseAddress(strings.TrimSpace(first))
		if err != nil {
			return AddressRange{}, err
		}
		b, err := parseAddress(strings.TrimSpace(last))
		if err != nil {
			return AddressRange{}, err
		}
		switch {
		case a.BitLen() != b.BitLen():
			return AddressRange{}, fmt.Errorf("a range is of one family")
		case b.Less(a):
			return AddressRange{}, fmt.Errorf("the range ends before it begins, write %s-%s", b, a)
		}
		return AddressRange{a, b}, nil
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return AddressRange{}, fmt.Errorf("not a CIDR")
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return AddressRange{}, fmt.Errorf("an IPv4-mapped CIDR: write it as IPv4")
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.Masked() != p {
			return AddressRange{}, fmt.Errorf("the address has bits set behind the prefix, write %s", p.Masked())
		}
		return RangeOf(p), nil
	}
	a, err := parseAddress(s)
	return AddressRange{a, a}, err
}

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("not an address")
	}
	if a.Zone() != "" {
		return a, fmt.Errorf("an address with a zone, which packets do not carry: write %s", a.WithZone(""))
	}
	return a.Unmap(), nil
}

// The bounds of udpTimeout.
const (
	minUDPTimeout = time.Second
	maxUDPTimeout = 24 * time.Hour
)

func (r *reader) udpTimeout(v *yaml.Node) {
	s, ok := r.text(v, "udpTimeout")
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		r.errorf(r.at(v), "udpTimeout is %q; it has to be a time with its unit, as 30s or 2m", s)
	case d < minUDPTimeout || d > maxUDPTimeout:
		r.errorf(r.at(v), "udpTimeout is %s; it has to be from 1s to 24h", s)
	case d%time.Second != 0:
		r.errorf(r.at(v), "udpTimeout is %s; it has to be whole seconds", s)
	default:
		r.policy.UDPTimeout = d
	}
}
