package nft

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// roundTrip encodes a rule to a message's attributes and decodes those.
func roundTrip(t interface{ Fatalf(string, ...any) }, r Rule) Rule {
	var w wire
	if _, err := w.rule("t", &RuleIn{Chain: "c", Rule: r}, nil); err != nil {
		t.Fatalf("encode %s: %v", r, err)
	}
	got, _, err := decodeRule(attrs{rest: w.b}, nil)
	if err != nil {
		t.Fatalf("decode %s: %v", r, err)
	}
	return got
}

func TestRuleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRule().Draw(t, "rule")
		got := roundTrip(t, want)
		if got.Comment != want.Comment {
			t.Fatalf("comment %q, want %q", got.Comment, want.Comment)
		}
		for _, s := range got.Statements {
			if f, ok := s.(Foreign); ok {
				t.Fatalf("%s decodes to foreign %s in %s", want, f, got)
			}
		}
		// Decoding leaves out a match that the next statement stands for, so the
		// statements may differ, what they mean may not.
		var d differ
		if !d.sameStatements(&want, &got) {
			t.Fatalf("decode(encode(%s)) = %s", want, got)
		}
		again := roundTrip(t, got)
		if diff := cmp.Diff(got, again, cmpAddr); diff != "" {
			t.Fatalf("decoding is not stable: %s", diff)
		}
	})
}

var cmpAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

// TestStatementRoundTrip asks for the very same statement back, each alone in a rule.
func TestStatementRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genStatement().Draw(t, "statement")
		got := roundTrip(t, Rule{Statements: []Statement{s}})
		if diff := cmp.Diff([]Statement{s}, got.Statements, cmpAddr); diff != "" {
			t.Fatalf("%s: %s", s, diff)
		}
	})
}

func TestDependencies(t *testing.T) {
	tcp := MatchMeta{Key: MetaL4Proto, Value: unix.IPPROTO_TCP}
	v4 := MatchMeta{Key: MetaNFProto, Value: nfprotoIPv4}
	ten := MatchAddress{First: mustAddr("10.0.0.0"), Last: mustAddr("10.255.255.255")}
	port := MatchPort{Protocol: unix.IPPROTO_TCP, First: 80, Last: 80}
	th := MatchPort{First: 80, Last: 80}
	icmp := MatchICMP{First: 3, Last: 3}
	tests := []struct {
		name  string
		in    []Statement
		exprs int
		out   []Statement
	}{
		{"address alone", []Statement{ten}, 4, []Statement{ten}},
		{"family before address", []Statement{v4, ten}, 4, []Statement{ten}},
		{"family twice", []Statement{v4, v4, ten}, 6, []Statement{v4, v4, ten}},
		{"two addresses share the family", []Statement{ten, ten}, 6, []Statement{ten, ten}},
		{"family between addresses stays", []Statement{ten, v4, ten}, 8, []Statement{ten, v4, ten}},
		{"transport far before port", []Statement{tcp, ten, port}, 8, []Statement{tcp, ten, port}},
		{"any port behind a transport is its port", []Statement{tcp, th}, 4, []Statement{port}},
		{"any port", []Statement{th}, 2, []Statement{th}},
		{"icmp", []Statement{icmp}, 6, []Statement{icmp}},
		{"icmp behind address", []Statement{ten, icmp}, 8, []Statement{ten, icmp}},
		{"not tcp does not establish", []Statement{MatchMeta{Key: MetaL4Proto, Not: true, Value: unix.IPPROTO_TCP}, th}, 4,
			[]Statement{MatchMeta{Key: MetaL4Proto, Not: true, Value: unix.IPPROTO_TCP}, th}},
		{"reset behind port", []Statement{port, Reject{TCPReset: true}}, 5, []Statement{port, Reject{TCPReset: true}}},
		{"reset alone", []Statement{Reject{TCPReset: true}}, 3, []Statement{Reject{TCPReset: true}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			exprs, err := lower(nil, &Rule{Statements: test.in})
			if err != nil {
				t.Fatal(err)
			}
			if len(exprs) != test.exprs {
				t.Errorf("%d expressions, want %d", len(exprs), test.exprs)
			}
			if diff := cmp.Diff(test.out, raise(exprs), cmpAddr); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLowerRefuses(t *testing.T) {
	for _, s := range []Statement{
		MatchAddress{},
		MatchAddress{First: mustAddr("10.0.0.1"), Last: mustAddr("::1")},
		MatchAddress{First: mustAddr("10.0.0.2"), Last: mustAddr("10.0.0.1")},
		MatchAddress{First: mustAddr("fe80::1%eth0"), Last: mustAddr("fe80::1%eth0")},
		MatchPort{First: 2, Last: 1},
		MatchPort{Protocol: 47, First: 1, Last: 1},
		MatchMeta{Key: MetaL4Proto, Value: 256},
		MatchMeta{Key: 99},
		MatchICMP{First: 1},
		MatchSet{Set: "s"},
		MatchSet{Key: []Field{{Kind: FieldCgroup}}, Set: "s"},
		MatchSet{Key: []Field{{Kind: FieldSource4}, {Kind: FieldDest6}}, Set: "s"},
		MatchSet{Key: []Field{{Kind: FieldDport}}},
		VMap{Key: []Field{{Kind: FieldDport}}, Map: "no space"},
		Limit{},
		Log{Prefix: `"`},
		Verdict{},
		Verdict{Kind: VerdictJump},
		Verdict{Kind: VerdictDrop, Chain: "x"},
		Reject{ICMPX: 9},
		nil,
	} {
		if _, err := lower(nil, &Rule{Statements: []Statement{s}}); err == nil {
			t.Errorf("%#v is lowered", s)
		}
	}
}

// TestForeign decodes expressions that are not ours, and asks for them back as they were.
func TestForeign(t *testing.T) {
	var w wire
	at := w.nest(unix.NFTA_RULE_EXPRESSIONS)
	elem := w.nest(unix.NFTA_LIST_ELEM)
	w.str(unix.NFTA_EXPR_NAME, "ct")
	data := w.nest(unix.NFTA_EXPR_DATA)
	w.u32(unix.NFTA_CT_DREG, 1)
	w.u32(unix.NFTA_CT_KEY, 0)
	w.unnest(data)
	w.unnest(elem)
	w.expression(&expr{kind: exprCmp, n: 4, data: [16]byte{1}})
	w.expression(&expr{kind: exprVerdict, off: uint32(codeAccept)})
	w.unnest(at)
	r, _, err := decodeRule(attrs{rest: w.b}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.String(), "<ct, 16 bytes> <cmp, 28 bytes> accept"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if diff := cmp.Diff(r, roundTrip(t, r), cmpAddr); diff != "" {
		t.Errorf("foreign statements change: %s", diff)
	}
	var d differ
	if !d.sameStatements(&r, &r) {
		t.Error("a foreign rule is not the same as itself")
	}
}
