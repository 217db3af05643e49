package nft

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func cgroup(id uint64, path string) Value { return Value{Type: TypeCgroup, Num: id, Text: path} }
func class(id uint32) Value               { return Value{Type: TypeClassID, Num: uint64(id)} }

// exampleTable returns a table that has one of everything.
func exampleTable() *Table {
	first := Field{Kind: FieldPriority}
	level2 := Field{Kind: FieldCgroup, Level: 2}
	l4, dport := Field{Kind: FieldL4Proto}, Field{Kind: FieldDport}
	jump := func(c string) Verdict { return Verdict{Kind: VerdictJump, Chain: c} }
	accept := Verdict{Kind: VerdictAccept}
	return &Table{
		Name: "sockns", Comment: "of policy.yaml",
		Sets: []Set{
			{
				Name: "accept_2", Comment: "peers by depth", Key: []Type{TypeClassID, TypeCgroup}, Data: TypeVerdict,
				Notes: []string{"who may speak to whom"},
				Elements: []Element{
					{Key: []Value{class(7), cgroup(22, "prod.slice/web")}, Verdict: jump("prod.web"), Comment: "policy.yaml:7"},
					{Key: []Value{class(0), cgroup(23, "prod.slice/db")}, Verdict: Verdict{Kind: VerdictDrop}},
					{Key: []Value{class(1), cgroup(0, "prod.slice/gone")}, Verdict: accept},
					{Key: []Value{class(2), cgroup(99, "")}, Verdict: accept},
				},
			},
			{
				Name: "id_2", Key: []Type{TypeCgroup}, Data: TypeClassID,
				Elements: []Element{{Key: []Value{cgroup(22, "prod.slice/web")}, Data: class(0x70022)}},
			},
			{
				Name: "out", Key: []Type{TypeInetProto, TypeIPv4, TypeInetService, TypeIPv4, TypeInetService},
				Dynamic: true, Timeout: 30 * time.Second, Size: 65536,
			},
			{
				Name: "exact", Key: []Type{TypeInetProto, TypeInetService},
				Elements: []Element{
					{Key: []Value{{Type: TypeInetProto, Num: 6}, {Type: TypeInetService, Num: 443}}},
					{Key: []Value{{Type: TypeInetProto, Num: 200}, {Type: TypeInetService, Num: 1}}},
				},
			},
			{
				Name: "six", Key: []Type{TypeIPv6},
				Elements: []Element{{Key: []Value{{Type: TypeIPv6, Addr: mustAddr("2001:db8::1")}}, Comment: "documentation"}},
			},
			{
				Name: "four", Key: []Type{TypeIPv4}, Interval: true,
				Elements: []Element{
					{Key: []Value{{Type: TypeIPv4, Addr: mustAddr("0.0.0.0")}, {Type: TypeIPv4, Addr: mustAddr("0.255.255.255")}}, Comment: "this network"},
					{Key: []Value{{Type: TypeIPv4, Addr: mustAddr("10.0.0.7")}, {Type: TypeIPv4, Addr: mustAddr("10.0.0.7")}}},
					{Key: []Value{{Type: TypeIPv4, Addr: mustAddr("10.0.0.9")}, {Type: TypeIPv4, Addr: mustAddr("10.0.0.12")}}},
					{Key: []Value{{Type: TypeIPv4, Addr: mustAddr("240.0.0.0")}, {Type: TypeIPv4, Addr: mustAddr("255.255.255.255")}}},
				},
			},
			{
				Name: "ports", Key: []Type{TypeInetService}, Interval: true,
				Elements: []Element{{Key: []Value{{Type: TypeInetService, Num: 80}, {Type: TypeInetService, Num: 89}}}},
			},
		},
		Chains: []Chain{
			{
				Name: "prod.web", Comment: "connect of prod.web", Rules: []Rule{
					{Statements: []Statement{MatchMeta{Key: MetaPktType, Value: 5}, accept}},
					{Statements: []Statement{MatchAddress{First: mustAddr("10.0.0.0"), Last: mustAddr("10.255.255.255")}, MatchPort{Protocol: unix.IPPROTO_TCP, First: 80, Last: 80}, accept}, Comment: "policy.yaml:12"},
					{Statements: []Statement{MatchAddress{Source: true, Not: true, First: mustAddr("2001:db8::"), Last: mustAddr("2001:db8::5")}, MatchPort{First: 1, Last: 1023}, Verdict{Kind: VerdictReturn}}},
					{Statements: []Statement{MatchAddress{First: mustAddr("192.168.0.0"), Last: mustAddr("192.168.127.255")}, Update{Key: []Field{l4, {Kind: FieldDest4}, dport, {Kind: FieldSource4}, {Kind: FieldSport}}, Set: "out"}}},
					{Statements: []Statement{MatchICMP{First: 3, Last: 5}, accept}},
					{Statements: []Statement{MatchICMP{V6: true, First: 133, Last: 133}, accept}},
					{Statements: []Statement{MatchTCPFlags{Mask: 0x17, Value: 2, Not: true}, accept}},
					{Statements: []Statement{MatchSCTPInit{}, accept}},
					{Statements: []Statement{MatchSCTPInit{Present: true}, Counter{Packets: 3, Bytes: 180}}},
					{Statements: []Statement{MatchSet{Key: []Field{l4, dport}, Not: true, Set: "exact"}, Limit{Rate: 10, Burst: 20}, Log{Prefix: "prod.web refused: "}}},
					{Statements: []Statement{MatchSet{Key: []Field{{Kind: FieldDest6}}, Set: "six"}, Reject{TCPReset: true}}},
					{Statements: []Statement{MatchSet{Key: []Field{{Kind: FieldSource4}}, Set: "four"}, accept}},
					{Statements: []Statement{MatchSet{Key: []Field{dport}, Set: "ports"}, accept}},
					{Statements: []Statement{Counter{}, Reject{ICMPX: ICMPXAdminProhibited}}},
				},
			},
			{
				Name: "output", Base: &Base{Hook: HookOutput}, Rules: []Rule{
					{Statements: []Statement{MatchMeta{Key: MetaOIF, Value: Loopback}, SetPriorityMap{Key: []Field{level2}, Map: "id_2"}}},
					{Statements: []Statement{MatchMeta{Key: MetaOIF, Value: Loopback}, MatchMeta{Key: MetaPriority, Not: true}, SetPriority{}}},
				},
			},
			{
				Name: "input", Base: &Base{Hook: HookInput, Priority: -5}, Rules: []Rule{
					{Statements: []Statement{MatchMeta{Key: MetaIIF, Value: Loopback, Not: true}, MatchMeta{Key: MetaPriority, Value: 0x12345678}, SetPriority{Value: 0x10002}}},
					{Statements: []Statement{VMap{Key: []Field{first, level2}, Map: "accept_2"}}},
					{Statements: []Statement{MatchMeta{Key: MetaNFProto, Value: nfprotoIPv6}, MatchMeta{Key: MetaL4Proto, Value: 58}, accept}},
				},
			},
		},
	}
}
