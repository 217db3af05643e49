package nft

import (
	"fmt"
	"net/netip"
	"slices"
)

// A set of intervals holds each as two elements in the kernel: where it begins,
// and, flagged as an end, the first value behind it; one that reaches to the
// highest value has no end (net/netfilter/nft_set_rbtree.c). A lookup finds the
// nearest element that is not above the key, and matches if that begins an
// interval. nft(8) adds an end at zero, which means nothing.

// checkInterval says why intervals can't be of a key's types.
func checkInterval(s *Set) error {
	if len(s.Key) != 1 || s.IsMap() || s.Dynamic {
		return fmt.Errorf("intervals are in plain sets of one field")
	}
	switch s.Key[0] {
	case TypeIPv4, TypeIPv6, TypeInetService:
		return nil
	}
	return fmt.Errorf("no intervals of %s", s.Key[0])
}

// checkRange says why a key is no interval of a type.
func checkRange(key []Value) error {
	if len(key) != 2 || key[0].Type != key[1].Type {
		return fmt.Errorf("an interval has a first and a last value")
	}
	if key[1].Compare(key[0]) < 0 {
		return fmt.Errorf("interval ends before it begins")
	}
	return nil
}

// behind returns the next higher value, false if there is none.
func behind(v Value) (Value, bool) {
	if v.Type == TypeInetService {
		v.Num++
		return v, v.Num <= highestPort
	}
	v.Addr = v.Addr.Next()
	return v, v.Addr.IsValid()
}

// before returns the next lower value of one that is not the lowest.
func before(v Value) Value {
	if v.Type == TypeInetService {
		v.Num--
		return v
	}
	v.Addr = v.Addr.Prev()
	return v
}

const highestPort = 1<<16 - 1

// highest returns the highest value of a type.
func highest(t Type) Value {
	v := Value{Type: t, Num: highestPort}
	if t != TypeInetService {
		info, _ := t.info()
		v.Num = 0
		v.Addr, _ = netip.AddrFromSlice(slices.Repeat([]byte{0xff}, info.size))
	}
	return v
}

// Halves of intervals, as the kernel tells them: a key whose other value is none.
func half(v Value, end bool) []Value {
	if end {
		return []Value{{}, v}
	}
	return []Value{v, {}}
}

// join makes intervals of halves, by what a lookup would find.
func (s *Set) join() {
	at := func(e *Element) (v Value, end bool) {
		if e.Key[0].Type == TypeNone {
			return e.Key[1], true
		}
		return e.Key[0], false
	}
	slices.SortStableFunc(s.Elements, func(a, b Element) int {
		v, endA := at(&a)
		w, endB := at(&b)
		if c := v.Compare(w); c != 0 || endA == endB {
			return c
		}
		if endA {
			return -1
		}
		return 1
	})
	joined := s.Elements[:0]
	open := false
	for _, e := range s.Elements {
		v, end := at(&e)
		if open {
			last := &joined[len(joined)-1].Key[1]
			if *last = v; v.Compare(joined[len(joined)-1].Key[0]) > 0 {
				*last = before(v)
			}
		}
		if open = !end; open {
			joined = append(joined, e)
		}
	}
	if open {
		joined[len(joined)-1].Key[1] = highest(s.Key[0])
	}
	clear(s.Elements[len(joined):])
	s.Elements = joined
}

// rangeText returns the text of an interval.
func rangeText(key []Value) string {
	if key[0].Type == TypeInetService {
		return numberRange(key[0].Num, key[1].Num)
	}
	return addressRange(key[0].Addr, key[1].Addr)
}
