// Package simulate walks a packet through the chains, sets and maps of a
// [nft.Table] as the kernel does (nft_do_chain in
// net/netfilter/nf_tables_core.c), without a kernel: for tests that ask what a
// table does to many packets.
package simulate

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/nft"
)

// Packet is what rules can see of a packet and of its socket.
type Packet struct {
	Protocol     uint8 // IPPROTO_TCP and so on
	Source, Dest netip.AddrPort
	TCPFlags     uint8
	ICMPType     uint8
	SCTPInit     bool // it has an INIT chunk
	// In and Out are the indexes of interfaces, each zero in the other's hook.
	In, Out  uint32
	Type     uint8  // PACKET_LOOPBACK and so on
	Priority uint32 // skb->priority: rules may write it
	Mark     uint32 // skb->mark: rules may write it
	// Cgroups are the ids of the cgroup that the packet's socket was created in
	// and of those above it; the first is a child of the root. Without a
	// socket there are none.
	Cgroups []uint64
}

// Outcome is what becomes of a packet in a hook.
type Outcome struct {
	Kind OutcomeKind
	Code nft.ICMPX // with Unreachable
}

// OutcomeKind says what becomes of a packet.
type OutcomeKind uint8

// What can become of a packet.
const (
	Accepted    OutcomeKind = iota
	Dropped                 // nobody is told
	Reset                   // and its sender gets a TCP reset
	Unreachable             // and its sender gets an ICMP error
)

// String names the outcome as a rule would.
func (o Outcome) String() string {
	switch o.Kind {
	case Accepted:
		return "accept"
	case Dropped:
		return "drop"
	case Reset:
		return "reject with tcp reset"
	}
	return nft.Reject{ICMPX: o.Code}.String()
}

// Netfilter is one table in one network namespace, and what packets have added
// to its dynamic sets. Timeouts do not pass in it. It is not safe for
// concurrent use.
type Netfilter struct {
	chains map[string]*nft.Chain
	base   map[nft.Hook]*nft.Chain
	sets   map[string]set
	ranges map[string]intervals
	// Trace, if set, is called with each rule whose verdict is taken.
	Trace func(chain string, rule nft.Rule)
	// Log, if set, is called with what is logged and the packet's mark then.
	Log func(log nft.Log, mark uint32)
}

// set holds the elements of a set or map by their keys.
type set map[string]nft.Element

// New returns the table at work. A nil table accepts everything.
func New(t *nft.Table) *Netfilter {
	n := &Netfilter{chains: make(map[string]*nft.Chain), base: make(map[nft.Hook]*nft.Chain), sets: make(map[string]set), ranges: make(map[string]intervals)}
	if t == nil {
		return n
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		n.chains[c.Name] = c
		if c.Base != nil {
			n.base[c.Base.Hook] = c
		}
	}
	for i := range t.Sets {
		if t.Sets[i].Interval {
			n.ranges[t.Sets[i].Name] = intervalsOf(&t.Sets[i])
			continue
		}
		s := make(set, len(t.Sets[i].Elements))
		for _, e := range t.Sets[i].Elements {
			var key []byte
			for _, v := range e.Key {
				key = appendKey(key, v)
			}
			s[string(key)] = e
		}
		n.sets[t.Sets[i].Name] = s
	}
	return n
}

// Run returns what becomes of a packet in a hook. It panics where the kernel
// would not have taken the table: a chain or a set that is not there.
func (n *Netfilter) Run(h nft.Hook, p *Packet) Outcome {
	c := n.base[h]
	if c == nil {
		return Outcome{}
	}
	o, _ := n.chain(c, p, 0)
	return o // its policy is accept
}

// jumpStack is NFT_JUMP_STACK_SIZE (include/net/netfilter/nf_tables.h).
const jumpStack = 16

// chain runs the rules of a chain; decided is false if it was left with
// return or at its end.
func (n *Netfilter) chain(c *nft.Chain, p *Packet, depth int) (o Outcome, decided bool) {
	if depth >= jumpStack {
		panic("chain " + c.Name + ": jumps are too deep")
	}
	for i := range c.Rules {
		end, found := n.rule(c.Rules[i].Statements, p)
		if !found {
			continue
		}
		if n.Trace != nil {
			n.Trace(c.Name, c.Rules[i])
		}
		switch v := end.(type) {
		case nft.Reject:
			if v.TCPReset {
				return Outcome{Kind: Reset}, true
			}
			return Outcome{Kind: Unreachable, Code: v.ICMPX}, true
		case nft.Verdict:
			switch v.Kind {
			case nft.VerdictAccept:
				return Outcome{}, true
			case nft.VerdictDrop:
				return Outcome{Kind: Dropped}, true
			case nft.VerdictReturn:
				return Outcome{}, false
			case nft.VerdictGoto:
				return n.chain(n.must(v.Chain), p, depth+1)
			case nft.VerdictJump:
				if o, decided := n.chain(n.must(v.Chain), p, depth+1); decided {
					return o, true
				}
			}
		}
	}
	return Outcome{}, false
}

func (n *Netfilter) must(chain string) *nft.Chain {
	c := n.chains[chain]
	if c == nil {
		panic("no chain " + chain)
	}
	return c
}

// rule carries out a rule and returns the [nft.Verdict] or [nft.Reject] that
// ends it, if one does.
func (n *Netfilter) rule(statements []nft.Statement, p *Packet) (end nft.Statement, found bool) {
	for _, s := range statements {
		matched := true
		switch s := s.(type) {
		case nft.Counter:
		case nft.Log:
			if n.Log != nil {
				n.Log(s, p.Mark)
			}
		case nft.Limit: // its rate is never exceeded here
		case nft.Verdict:
			return s, true
		case nft.Reject:
			if !s.TCPReset || p.Protocol == unix.IPPROTO_TCP {
				return s, true
			}
			matched = false
		case nft.VMap:
			if e, ok := n.lookup(s.Map, s.Key, p); ok {
				return e.Verdict, true
			}
			matched = false
		case nft.SetPriority:
			p.Priority = s.Value
		case nft.SetPriorityMap:
			e, ok := n.lookup(s.Map, s.Key, p)
			if matched = ok; ok {
				p.Priority = uint32(e.Data.Num)
			}
		case nft.SetMark:
			p.Mark = s.Value
		case nft.SetMarkMap:
			e, ok := n.lookup(s.Map, s.Key, p)
			if matched = ok; ok {
				p.Mark = uint32(e.Data.Num)
			}
		case nft.SetMarkBits:
			p.Mark |= s.Bits
		case nft.Update:
			key, ok := keyOf(s.Key, p)
			if matched = ok; ok {
				n.set(s.Set)[key] = nft.Element{Data: nft.Value{Type: nft.TypeMark, Num: uint64(p.Mark)}}
			}
		case nft.MatchSet:
			in, ok := n.holds(s.Set, s.Key, p)
			matched = ok && in != s.Not
		default:
			matched = matches(s, p)
		}
		if !matched {
			return nil, false
		}
	}
	return nil, false
}

func (n *Netfilter) set(name string) set {
	s, ok := n.sets[name]
	if !ok {
		panic("no set " + name)
	}
	return s
}

// holds reports whether a set has a packet's key; ok is false if the packet lacks
// a field, which ends the rule.
func (n *Netfilter) holds(name string, key []nft.Field, p *Packet) (in, ok bool) {
	if ranges, is := n.ranges[name]; is && len(key) == 1 {
		v, ok := valueOf(key[0], p)
		return ok && ranges.hold(v), ok
	}
	k, ok := keyOf(key, p)
	if !ok {
		return false, false
	}
	_, in = n.set(name)[k]
	return in, true
}

func (n *Netfilter) lookup(name string, key []nft.Field, p *Packet) (nft.Element, bool) {
	k, ok := keyOf(key, p)
	if !ok {
		return nft.Element{}, false
	}
	e, ok := n.set(name)[k]
	return e, ok
}

// matches reports whether a packet matches a statement that changes nothing.
func matches(s nft.Statement, p *Packet) bool {
	switch s := s.(type) {
	case nft.MatchMeta:
		value := meta(s.Key, p)
		if s.Mask != 0 {
			value &= s.Mask
		}
		return (value == s.Value) != s.Not
	case nft.MatchAddress:
		addr := p.Dest.Addr()
		if s.Source {
			addr = p.Source.Addr()
		}
		if addr.BitLen() != s.First.BitLen() {
			return false
		}
		return (s.First.Compare(addr) <= 0 && addr.Compare(s.Last) <= 0) != s.Not
	case nft.MatchPort:
		port := p.Dest.Port()
		if s.Source {
			port = p.Source.Port()
		}
		return (s.Protocol == 0 || s.Protocol == p.Protocol) && s.First <= port && port <= s.Last
	case nft.MatchICMP:
		protocol := uint8(unix.IPPROTO_ICMP)
		if s.V6 {
			protocol = unix.IPPROTO_ICMPV6
		}
		return p.Protocol == protocol && s.First <= p.ICMPType && p.ICMPType <= s.Last
	case nft.MatchTCPFlags:
		return p.Protocol == unix.IPPROTO_TCP && (p.TCPFlags&s.Mask == s.Value) != s.Not
	case nft.MatchSCTPInit:
		// A packet of another protocol has no such chunk: nft_exthdr_sctp_eval
		// in net/netfilter/nft_exthdr.c stores false for it.
		return s.Present == (p.Protocol == unix.IPPROTO_SCTP && p.SCTPInit)
	}
	panic(fmt.Sprintf("statement of type %T", s))
}

func meta(k nft.MetaKey, p *Packet) uint32 {
	switch k {
	case nft.MetaL4Proto:
		return uint32(p.Protocol)
	case nft.MetaNFProto:
		if p.Dest.Addr().Is4() {
			return unix.NFPROTO_IPV4
		}
		return unix.NFPROTO_IPV6
	case nft.MetaIIF:
		return p.In
	case nft.MetaOIF:
		return p.Out
	case nft.MetaPriority:
		return p.Priority
	case nft.MetaMark:
		return p.Mark
	case nft.MetaPktType:
		return uint32(p.Type)
	}
	panic("no metadata " + k.String())
}
