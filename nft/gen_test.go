package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// The generators draw values that the package can write, small enough that the
// same ones come up again.

func genAddr(v4 bool) *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		n := 16
		if v4 {
			n = 4
		}
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 10, 128, 255}), n, n).Draw(t, "addr")
		a, _ := netip.AddrFromSlice(b)
		return a
	})
}

func genRange() *rapid.Generator[[2]netip.Addr] {
	return rapid.Custom(func(t *rapid.T) [2]netip.Addr {
		v4 := rapid.Bool().Draw(t, "v4")
		a := genAddr(v4).Draw(t, "first")
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return [2]netip.Addr{a, a}
		case 1:
			bits := rapid.IntRange(0, a.BitLen()).Draw(t, "bits")
			p, _ := a.Prefix(bits)
			last := p.Addr().AsSlice()
			for i := bits; i < len(last)*8; i++ {
				last[i/8] |= 0x80 >> (i % 8)
			}
			z, _ := netip.AddrFromSlice(last)
			return [2]netip.Addr{p.Addr(), z}
		}
		z := genAddr(v4).Draw(t, "last")
		if z.Less(a) {
			a, z = z, a
		}
		return [2]netip.Addr{a, z}
	})
}

func genPorts[T uint8 | uint16]() *rapid.Generator[[2]T] {
	return rapid.Custom(func(t *rapid.T) [2]T {
		p := rapid.Custom(func(t *rapid.T) T { return T(rapid.Uint16().Draw(t, "n")) })
		a, z := p.Draw(t, "first"), p.Draw(t, "last")
		if rapid.Bool().Draw(t, "one") {
			z = a
		}
		if z < a {
			a, z = z, a
		}
		return [2]T{a, z}
	})
}

func genMeta() *rapid.Generator[MatchMeta] {
	return rapid.Custom(func(t *rapid.T) MatchMeta {
		m := MatchMeta{Key: MetaKey(rapid.IntRange(0, len(metaKeys)-1).Draw(t, "key")), Not: rapid.Bool().Draw(t, "not")}
		switch m.Key {
		case MetaL4Proto:
			m.Value = uint32(rapid.SampledFrom([]uint8{0, 1, 6, 17, 58, 132, 136, 200}).Draw(t, "l4proto"))
		case MetaNFProto:
			m.Value = rapid.SampledFrom([]uint32{nfprotoIPv4, nfprotoIPv6}).Draw(t, "nfproto")
		case MetaPktType:
			m.Value = uint32(rapid.IntRange(0, 6).Draw(t, "pkttype"))
		case MetaPriority, MetaMark:
			m.Value = genClassID().Draw(t, "bits")
			if rapid.Bool().Draw(t, "masked") {
				m.Mask = rapid.SampledFrom([]uint32{0x80000000, 0xffc00000, 0x7fffffff}).Draw(t, "mask")
				m.Value &= m.Mask
			}
		default:
			m.Value = uint32(rapid.IntRange(1, 9).Draw(t, "interface"))
		}
		return m
	})
}

func genClassID() *rapid.Generator[uint32] {
	return rapid.OneOf(rapid.Uint32(), rapid.SampledFrom([]uint32{0, 5, 0x70000, 0x12345678, 0xffffffff}))
}

// setFor returns the name of the set of a key, so that rules use sets that fit.
func setFor(kind string, key []Field) string {
	name := kind
	for _, f := range key {
		name += fmt.Sprintf("_%d", f.Type())
	}
	return name
}

func genKey() *rapid.Generator[[]Field] {
	return rapid.Custom(func(t *rapid.T) []Field {
		avoid := rapid.SampledFrom([]uint8{nfprotoIPv4, nfprotoIPv6}).Draw(t, "avoid")
		n := rapid.IntRange(1, maxKeyFields).Draw(t, "fields")
		var key []Field
		size := 0
		for range n {
			f := Field{Kind: FieldKind(rapid.IntRange(0, int(FieldDport)).Draw(t, "kind"))}
			info, _ := f.Type().info()
			if f.family() == avoid || size+words(info.size) > maxKeyWords {
				continue
			}
			if f.Kind == FieldCgroup {
				f.Level = uint8(rapid.IntRange(1, 8).Draw(t, "level"))
			}
			size += words(info.size)
			key = append(key, f)
		}
		if len(key) == 1 && key[0].Type().maskable() && rapid.Bool().Draw(t, "masked") {
			key[0].Mask = rapid.SampledFrom([]uint32{0x80000000, 0xffc00000, 0x7fffffff}).Draw(t, "mask")
		}
		if key == nil {
			key = []Field{{Kind: FieldDport}}
		}
		return key
	})
}

func keyWords(key []Field) (n int) {
	for _, f := range key {
		info, _ := f.Type().info()
		n += words(info.size)
	}
	return n
}

var genChainName = rapid.SampledFrom([]string{"web", "prod.web", "x-y", "a_b"})

func genVerdict() *rapid.Generator[Verdict] {
	return rapid.Custom(func(t *rapid.T) Verdict {
		v := Verdict{Kind: VerdictKind(rapid.IntRange(1, int(VerdictGoto)).Draw(t, "kind"))}
		if v.Kind == VerdictJump || v.Kind == VerdictGoto {
			v.Chain = genChainName.Draw(t, "chain")
		}
		return v
	})
}

func genStatement() *rapid.Generator[Statement] {
	return rapid.Custom(func(t *rapid.T) Statement {
		not := rapid.Bool().Draw(t, "not")
		switch rapid.IntRange(0, 18).Draw(t, "statement") {
		case 0:
			return genMeta().Draw(t, "meta")
		case 1:
			r := genRange().Draw(t, "range")
			return MatchAddress{Source: rapid.Bool().Draw(t, "source"), Not: not, First: r[0], Last: r[1]}
		case 2:
			r := genPorts[uint16]().Draw(t, "ports")
			p := rapid.SampledFrom([]uint8{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE}).Draw(t, "protocol")
			return MatchPort{Protocol: p, Source: not, First: r[0], Last: r[1]}
		case 3:
			r := genPorts[uint8]().Draw(t, "types")
			return MatchICMP{V6: not, First: r[0], Last: r[1]}
		case 4:
			mask := rapid.Uint8Range(1, 255).Draw(t, "mask")
			return MatchTCPFlags{Mask: mask, Value: mask & rapid.Byte().Draw(t, "flags"), Not: not}
		case 5:
			return MatchSCTPInit{Present: not}
		case 6:
			if rapid.Bool().Draw(t, "interval") {
				key := []Field{{Kind: FieldKind(rapid.IntRange(int(FieldSource4), int(FieldDport)).Draw(t, "kind"))}}
				return MatchSet{Key: key, Not: not, Set: setFor(intervalSet, key)}
			}
			key := genKey().Draw(t, "key")
			return MatchSet{Key: key, Not: not, Set: setFor("s", key)}
		case 7:
			key := genKey().Draw(t, "key")
			return VMap{Key: key, Map: setFor("v", key)}
		case 8:
			return SetPriority{Value: genClassID().Draw(t, "priority")}
		case 9:
			key := genKey().Draw(t, "key")
			return SetPriorityMap{Key: key, Map: setFor("p", key)}
		case 10:
			key := genKey().Draw(t, "key")
			u := Update{Key: key, Set: setFor("u", key)}
			if not {
				u.Limit = Limit{Rate: 16, Burst: 32}
			}
			return u
		case 11:
			return Counter{Packets: uint64(rapid.Uint16().Draw(t, "packets")), Bytes: uint64(rapid.Uint16().Draw(t, "bytes"))}
		case 12:
			return Limit{Rate: uint64(rapid.IntRange(1, 1000).Draw(t, "rate")), Burst: uint32(rapid.IntRange(1, 100).Draw(t, "burst"))}
		case 13:
			return Log{Prefix: rapid.SampledFrom([]string{"", "prod.web accept: ", "x"}).Draw(t, "prefix"), Group: rapid.Uint16().Draw(t, "group")}
		case 14:
			return SetMark{Value: rapid.Uint32().Draw(t, "mark")}
		case 15:
			key := genKey().Draw(t, "key")
			return SetMarkMap{Key: key, Map: setFor("m", key)}
		case 16:
			return SetMarkBits{Bits: rapid.Uint32Range(1, 1<<32-2).Draw(t, "bits")}
		case 17:
			key := genKey().Draw(t, "key")
			if keyWords(key) > dataRegister {
				key = key[:1]
			}
			if rapid.Bool().Draw(t, "iif") {
				key = append([]Field{{Kind: FieldIIF}}, Field{Kind: FieldSport}, Field{Kind: FieldDport})
			}
			return Update{Key: key, Set: setFor("um", key), Mark: true}
		}
		return MatchMeta{Key: MetaL4Proto, Value: unix.IPPROTO_TCP}
	})
}

func genRule() *rapid.Generator[Rule] {
	return rapid.Custom(func(t *rapid.T) Rule {
		r := Rule{Statements: rapid.SliceOfN(genStatement(), 0, 6).Draw(t, "statements")}
		switch rapid.IntRange(0, 3).Draw(t, "end") {
		case 0:
			r.Statements = append(r.Statements, genVerdict().Draw(t, "verdict"))
		case 1:
			r.Statements = append(r.Statements, Reject{TCPReset: true})
		case 2:
			r.Statements = append(r.Statements, Reject{ICMPX: ICMPX(rapid.IntRange(0, 3).Draw(t, "code"))})
		}
		if len(r.Statements) == 0 {
			r.Statements = []Statement{Counter{}}
		}
		r.Comment = rapid.SampledFrom([]string{"", "", "policy.yaml:12", "it's # : } ; \\ é"}).Draw(t, "comment")
		return r
	})
}

func genValue(typ Type) *rapid.Generator[Value] {
	return rapid.Custom(func(t *rapid.T) Value {
		v := Value{Type: typ}
		switch typ {
		case TypeIPv4, TypeIPv6:
			v.Addr = genAddr(typ == TypeIPv4).Draw(t, "addr")
		case TypeCgroup:
			v.Num = rapid.Uint64Range(1, 1<<40).Draw(t, "cgroup")
		case TypeMark:
			v.Num = uint64(rapid.Uint32().Draw(t, "mark"))
		case TypeClassID:
			v.Num = uint64(genClassID().Draw(t, "classid"))
		case TypeInetProto:
			v.Num = uint64(rapid.Uint8().Draw(t, "proto"))
		case TypeInetService:
			v.Num = uint64(rapid.Uint16().Draw(t, "port"))
		}
		return v
	})
}

// genTable draws a table whose rules find the sets and chains that they name.
func genTable(name string) *rapid.Generator[*Table] {
	return rapid.Custom(func(t *rapid.T) *Table {
		tab := &Table{Name: name, Comment: rapid.SampledFrom([]string{"", "made by a test"}).Draw(t, "comment")}
		for _, c := range []string{"web", "prod.web", "x-y", "a_b"} {
			tab.Chains = append(tab.Chains, Chain{Name: c, Comment: rapid.SampledFrom([]string{"", "c"}).Draw(t, "comment")})
		}
		for i, h := range []Hook{HookInput, HookOutput} {
			tab.Chains = append(tab.Chains, Chain{Name: h.String(), Base: &Base{Hook: h, Priority: int32(i * -150)}})
		}
		for i := range tab.Chains {
			c := &tab.Chains[i]
			rules := rapid.SliceOfN(genRule(), 0, 5).Draw(t, "rules")
			for j := range rules {
				for k, s := range rules[j].Statements {
					switch s := s.(type) {
					case Verdict: // no loops
						if c.Base == nil && s.Chain != "" {
							rules[j].Statements[k] = Verdict{Kind: VerdictReturn}
						}
					}
				}
			}
			c.Rules = rules
			for _, r := range rules {
				for _, s := range r.Statements {
					tab.addSetOf(t, s)
				}
			}
		}
		// Elements that jump, in maps that only base chains look into.
		if rapid.Bool().Draw(t, "jumps") {
			s := Set{Name: "jumps", Key: []Type{TypeClassID, TypeCgroup}, Data: TypeVerdict, Comment: "jumps"}
			s.Elements = genElements(t, &s)
			for i := range s.Elements {
				s.Elements[i].Verdict = genVerdict().Draw(t, "verdict")
			}
			tab.Sets = append(tab.Sets, s)
			last := &tab.Chains[len(tab.Chains)-1]
			last.Rules = append(last.Rules, Rule{Statements: []Statement{VMap{Key: []Field{{Kind: FieldPriority}, {Kind: FieldCgroup, Level: 2}}, Map: "jumps"}}})
		}
		return tab
	})
}

// intervalSet begins the names of sets of intervals.
const intervalSet = "interval"

// genIntervals draws intervals that have nothing in common; adjacent ones, and
// the lowest and the highest value are among them.
func genIntervals(t *rapid.T, typ Type) []Element {
	low := Value{Type: typ}
	if typ != TypeInetService {
		low.Addr = netip.IPv4Unspecified()
		if typ == TypeIPv6 {
			low.Addr = netip.IPv6Unspecified()
		}
	}
	value := rapid.OneOf(genValue(typ), rapid.SampledFrom([]Value{low, highest(typ)}))
	bounds := rapid.SliceOfN(value, 0, 8).Draw(t, "bounds")
	slices.SortFunc(bounds, Value.Compare)
	var elements []Element
	for len(bounds) > 1 {
		first, last := bounds[0], bounds[1]
		if rapid.Bool().Draw(t, "one") {
			last = first
		}
		if n := len(elements); n > 0 {
			after, some := behind(elements[n-1].Key[1])
			if !some || last.Compare(after) < 0 {
				break
			}
			if rapid.Bool().Draw(t, "adjacent") || first.Compare(after) < 0 {
				first = after
			}
		}
		elements = append(elements, Element{Key: []Value{first, last}, Comment: rapid.SampledFrom([]string{"", "e"}).Draw(t, "comment")})
		bounds = bounds[2:]
	}
	return elements
}

func genElements(t *rapid.T, s *Set) []Element {
	if s.Interval {
		return genIntervals(t, s.Key[0])
	}
	var elements []Element
	seen := map[string]bool{}
	for range rapid.IntRange(0, 5).Draw(t, "elements") {
		e := Element{Comment: rapid.SampledFrom([]string{"", "e"}).Draw(t, "comment")}
		for _, k := range s.Key {
			e.Key = append(e.Key, genValue(k).Draw(t, "key"))
		}
		if k := string(appendKey(nil, e.Key)); seen[k] {
			continue
		} else {
			seen[k] = true
		}
		switch s.Data {
		case TypeVerdict:
			e.Verdict = Verdict{Kind: rapid.SampledFrom([]VerdictKind{VerdictAccept, VerdictDrop, VerdictReturn}).Draw(t, "verdict")}
		case TypeNone:
		default:
			e.Data = genValue(s.Data).Draw(t, "data")
		}
		elements = append(elements, e)
	}
	return elements
}

func (tab *Table) addSetOf(t *rapid.T, s Statement) {
	var set Set
	var key []Field
	switch s := s.(type) {
	case MatchSet:
		set.Name, key, set.Interval = s.Set, s.Key, strings.HasPrefix(s.Set, intervalSet)
	case VMap:
		set.Name, key, set.Data = s.Map, s.Key, TypeVerdict
	case SetPriorityMap:
		set.Name, key, set.Data = s.Map, s.Key, TypeClassID
	case SetMarkMap:
		set.Name, key, set.Data = s.Map, s.Key, TypeMark
	case Update:
		set.Name, key, set.Dynamic, set.Timeout, set.Size = s.Set, s.Key, true, 90500*time.Millisecond, 100
		if s.Mark {
			set.Data = TypeMark
		}
	default:
		return
	}
	if _, there := tab.setsByName()[set.Name]; there {
		return
	}
	for _, f := range key {
		set.Key = append(set.Key, f.Type())
	}
	if !set.Dynamic {
		set.Comment = rapid.SampledFrom([]string{"", "s"}).Draw(t, "comment")
		set.Elements = genElements(t, &set)
	}
	tab.Sets = append(tab.Sets, set)
}
