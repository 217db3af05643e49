package nft

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func port(n uint64) Value { return Value{Type: TypeInetService, Num: n} }

// TestIntervalsRoundTrip writes intervals and reads what a kernel would tell.
func TestIntervalsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Set{Name: "s", Interval: true, Key: []Type{rapid.SampledFrom([]Type{TypeIPv4, TypeIPv6, TypeInetService}).Draw(t, "type")}}
		want := genIntervals(t, s.Key[0])
		var w wire
		list := w.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for _, i := range rapid.Permutation(want).Draw(t, "order") {
			if err := w.interval(&i, VerbAdd); err != nil {
				t.Fatal(err)
			}
		}
		w.unnest(list)
		if err := decodeElements(attrs{rest: w.b}, &s); err != nil || s.Foreign {
			t.Fatalf("%v, foreign %v", err, s.Foreign)
		}
		s.join()
		if diff := cmp.Diff(want, s.Elements, cmpAddr); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestJoin joins what only others leave in the kernel.
func TestJoin(t *testing.T) {
	begin, end := func(n uint64) Element { return Element{Key: half(port(n), false)} }, func(n uint64) Element { return Element{Key: half(port(n), true)} }
	interval := func(first, last uint64) Element { return Element{Key: []Value{port(first), port(last)}} }
	for _, c := range []struct {
		name     string
		in, want []Element
	}{
		{"nft's end at zero", []Element{end(0), begin(5), end(7)}, []Element{interval(5, 6)}},
		{"two begin", []Element{begin(5), begin(9), end(11)}, []Element{interval(5, 8), interval(9, 10)}},
		{"two end", []Element{begin(5), end(9), end(11)}, []Element{interval(5, 8)}},
		{"adjacent, any order", []Element{end(9), begin(9), begin(5), end(11)}, []Element{interval(5, 8), interval(9, 10)}},
		{"to the top", []Element{begin(5)}, []Element{interval(5, 65535)}},
		{"the top alone", []Element{begin(65535)}, []Element{interval(65535, 65535)}},
		{"all", []Element{begin(0)}, []Element{interval(0, 65535)}},
	} {
		s := Set{Key: []Type{TypeInetService}, Interval: true, Elements: c.in}
		s.join()
		if diff := cmp.Diff(c.want, s.Elements, cmpAddr); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestIntervalsRefused(t *testing.T) {
	for _, s := range []Set{
		{Name: "s", Interval: true, Key: []Type{TypeIPv4, TypeInetService}},
		{Name: "s", Interval: true, Key: []Type{TypeIPv4}, Data: TypeVerdict},
		{Name: "s", Interval: true, Key: []Type{TypeCgroup}},
	} {
		if err := new(wire).set("t", &s, 1); err == nil {
			t.Errorf("%v is written", s.specs())
		}
	}
	for _, key := range [][]Value{
		{port(5)},
		{port(5), port(4)},
		{port(5), {Type: TypeIPv4, Addr: mustAddr("10.0.0.1")}},
		{{Type: TypeIPv4, Addr: mustAddr("10.0.0.1")}, {Type: TypeIPv4, Addr: mustAddr("::1")}},
		{port(5), port(1 << 16)},
	} {
		if err := new(wire).interval(&Element{Key: key}, VerbAdd); err == nil {
			t.Errorf("%v is written", key)
		}
	}
}

// TestIntervalFailure asks the kernel for intervals that overlap: the error names
// the one that is in the way.
func TestIntervalFailure(t *testing.T) {
	c := newConn(t)
	s := Set{Name: "ports", Key: []Type{TypeInetService}, Interval: true}
	apply(t, c, nil, &Table{Name: "sockns", Sets: []Set{s}})
	var b Batch
	var list []Element
	for _, r := range [][2]uint64{{1, 9}, {20, 29}, {25, 40}, {60000, 65535}} {
		list = append(list, Element{Key: []Value{port(r[0]), port(r[1])}})
	}
	b.Add("sockns", ElementsIn{Set: "ports", Interval: true, Elements: list})
	err := c.Commit(b)
	var failed *CommitError
	if !errors.As(err, &failed) || len(failed.Failures) != 1 {
		t.Fatalf("error is %v", err)
	}
	if got, want := failed.Failures[0].String(), "add element 25-40 to set ports: file exists"; got != want {
		t.Errorf("failure is %q, want %q", got, want)
	}
}
