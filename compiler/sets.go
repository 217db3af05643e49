package compiler

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// Long lists of addresses and ports become sets of the table where that is
// cheaper than a rule for each (prices.go): single values a hash set, ranges a
// set of intervals. A set is named by its content, so that all rules, namespaces
// and hooks that have a list have the same set, and a list that changes is another
// set: the new one is filled before a packet sees it, then the chains that ask it
// are written anew. Those of a group's list keep their names (share.go), and so their
// counters and all that leads to them.
//
// Elements put into and taken from the set that is there would be less work, but
// packets would see neither the old policy nor the new one: they read rules as of the
// moment they come and sets as they are, so one could pass old rules with a new list, or
// miss an address that is in both lists, if it goes from one of two sets to the other. And
// in a set of intervals a lookup can miss what is in force while elements near it
// are being written (net/netfilter/nft_set_rbtree.c; mended in nf-next of January 2026).

// fewest is the shortest list that is worth a thought.
const fewest = 4

// shortRange is how many values a range may have to be taken for as many single ones.
const shortRange = 4

// What the names of sets of lists begin with.
const (
	listAddresses  = "addresses"
	listRanges     = "ranges"
	listPorts      = "ports"
	listPortRanges = "port_ranges"
)

// isListSet reports whether a set of a table is that of a list.
func isListSet(name string) bool {
	kind, _, _ := strings.Cut(name, "_")
	switch strings.TrimRight(kind, "46") {
	case listAddresses, listRanges, listPorts:
		return true
	}
	return strings.HasPrefix(name, listPortRanges+"_")
}

// addressList is a list of addresses in the shape chosen for it.
type addressList struct {
	sets []*nft.Set           // of each family at most one of single addresses and one of ranges
	rest []model.AddressRange // what is in none
}

// lists remembers the lists of addresses of a device namespace, which many rules name.
type lists struct {
	least    int // elements of a set
	distinct int // at most so many lists may get one
	mu       sync.Mutex
	known    map[listKey]*addressList
}

// listKey tells a slice of the policy from others: a policy does not change while
// it is compiled.
type listKey struct {
	first *model.AddressRange
	n     int
}

// newLists finds out how long a list has to be to get a set, so that there are
// not too many.
func newLists(r *resolver, spaces []*space) *lists {
	all := &lists{known: make(map[listKey]*addressList)}
	if !r.passes.has(PassSets) {
		return all
	}
	c := census{groups: make(map[string][]model.AddressRange), sizes: make(map[uint64]int)}
	for i := range r.policy.Groups {
		c.groups[r.policy.Groups[i].Name] = r.policy.Groups[i].Addresses
	}
	var before *model.SocketNamespace
	for _, s := range spaces {
		if s.source == before { // an instance as the one before it
			continue
		}
		before = s.source
		if n := len(s.source.Addresses); n+1 >= fewest { // loopback is among them
			c.count(appendRanges(nil, s.source.Addresses), n)
		}
		for _, h := range model.Hooks {
			for i := range s.source.Rules(h) {
				c.rule(&s.source.Rules(h)[i])
			}
		}
	}
	if all.distinct = len(c.sizes); all.distinct > mostListSets {
		sizes := slices.Sorted(maps.Values(c.sizes))
		all.least = sizes[len(sizes)-mostListSets-1] + 1
	}
	return all
}

// part is what one of a rule's peers adds to a list of addresses.
type part struct {
	group  string // that it is of, if it is a group's
	ranges []model.AddressRange
}

func (l *lowering) part(peer model.Peer, n *model.SocketNamespace) part {
	p := part{ranges: l.addresses(peer, n)}
	if peer.Kind == model.PeerGroup {
		p.group = peer.Name
	}
	return p
}

// longLists divides lists of addresses into sets and what becomes rules. A long
// list of a group or a namespace is looked up by itself, so that all rules that
// name it have the same set.
func (l *lowering) longLists(parts []part) (sets []*nft.Set, rest []model.AddressRange) {
	total := 0
	for _, p := range parts {
		total += len(p.ranges)
	}
	if total < fewest || !l.passes.has(PassSets) {
		return nil, joined(parts)
	}
	var short []part
	take := func(found *addressList, p part) {
		if len(found.sets) == 0 {
			short = append(short, p)
			return
		}
		sets, rest = append(sets, found.sets...), append(rest, found.rest...)
		for _, set := range found.sets {
			l.sets[set.Name] = set
			if p.group != "" {
				l.holds[set.Name] = p.group
			}
		}
	}
	for _, p := range parts {
		if len(p.ranges) < fewest {
			short = append(short, p)
		} else {
			take(l.lists.of(p.ranges), p)
		}
	}
	if left := joined(short); len(short) > 1 && len(left) >= fewest {
		short = nil
		take(listOf(left, l.lists.least), part{ranges: left})
	}
	return sets, append(rest, joined(short)...)
}

func joined(parts []part) []model.AddressRange {
	if len(parts) == 1 {
		return parts[0].ranges
	}
	var all []model.AddressRange
	for _, p := range parts {
		all = append(all, p.ranges...)
	}
	return all
}

// of returns the shape of a list of the policy.
func (all *lists) of(ranges []model.AddressRange) *addressList {
	key := listKey{&ranges[0], len(ranges)}
	all.mu.Lock()
	defer all.mu.Unlock()
	found := all.known[key]
	if found == nil {
		found = listOf(ranges, all.least)
		all.known[key] = found
	}
	return found
}

// listOf picks the shape of a list of addresses.
func listOf(ranges []model.AddressRange, least int) *addressList {
	all := &addressList{}
	merged := mergeAddresses(ranges)
	six := slices.IndexFunc(merged, func(r model.AddressRange) bool { return r.First.Is6() })
	if six < 0 {
		six = len(merged)
	}
	all.add(merged[:six], "4", nft.TypeIPv4, least)
	all.add(merged[six:], "6", nft.TypeIPv6, least)
	return all
}

// add adds the addresses of one family, merged.
func (all *addressList) add(merged []model.AddressRange, family string, typ nft.Type, least int) {
	single, ranges := apart(merged, 1)
	s, cost := shapeOf(len(single), len(ranges), 1, 1, costLookup, least)
	// Ranges of a few addresses, as merging makes them of neighbours, may be as
	// many single ones.
	if few, others := apart(merged, shortRange); len(few) > len(single) {
		if other, less := shapeOf(len(few), len(others), 1, 1, costLookup, least); less.score() < cost.score() {
			s, single, ranges = other, few, others
		}
	}
	set := func(kind string, interval bool, list []model.AddressRange) {
		b := make([]byte, 0, 33*len(list))
		elements := make([]nft.Element, len(list))
		for i, r := range list {
			b = appendRange(b, r)
			elements[i].Key = []nft.Value{{Type: typ, Addr: r.First}}
			if interval {
				elements[i].Key = append(elements[i].Key, nft.Value{Type: typ, Addr: r.Last})
			}
		}
		all.sets = append(all.sets, &nft.Set{Name: listName(kind+family, b), Key: []nft.Type{typ}, Interval: interval, Elements: elements})
	}
	switch {
	case s.intervals && !s.hash:
		set(listRanges, true, merged)
		return
	case s.hash:
		set(listAddresses, false, single)
	default:
		all.rest = append(all.rest, single...)
	}
	if s.intervals {
		set(listRanges, true, ranges)
	} else {
		all.rest = append(all.rest, ranges...)
	}
}

// apart divides ranges into single addresses and the others; those of up to some
// number of addresses become as many single ones.
func apart(merged []model.AddressRange, short int) (single, ranges []model.AddressRange) {
next:
	for _, r := range merged {
		for last, n := r.First, 1; n <= short; last, n = last.Next(), n+1 {
			if last != r.Last {
				continue
			}
			for a := r.First; ; a = a.Next() {
				single = append(single, model.AddressRange{First: a, Last: a})
				if a == last {
					continue next
				}
			}
		}
		ranges = append(ranges, r)
	}
	return single, ranges
}

// listName names a set by its content.
func listName(kind string, content []byte) string {
	sum := sha256.Sum256(content)
	return kind + "_" + hex.EncodeToString(sum[:listDigest])
}

// listDigest is how many bytes of a digest are in the name of a set: so many that no two
// lists have the same.
const listDigest = 10

// portSets returns the matches for those of a rule's ports that are in
// sets, and the ports that are in none. Single ports are in a set with the transports that
// they are of, ranges in one for all.
func (l *lowering) portSets(protocols []model.Protocol, ports []model.PortRange, s side, within transports) (terms []term, rest []model.PortRange) {
	if len(ports) < fewest || !l.passes.has(PassSets) {
		return nil, ports
	}
	if len(protocols) == 0 {
		protocols = model.Protocols[:]
	}
	var numbers []uint8
	for _, p := range protocols {
		if p.HasPorts() {
			numbers = append(numbers, protocolNumber[p])
		}
	}
	before := []term{{}} // what has to match before a set of ranges
	if within == (transports{}) {
		before = nil
		for _, n := range numbers {
			before = append(before, protocolTerm(n))
		}
	} else {
		t, some := transportsOf(protocols).and(within).term(within)
		if !some {
			return nil, ports
		}
		before[0] = t
	}
	var single, ranges []model.PortRange
	merged := mergePorts(ports)
	for _, r := range merged {
		if r.First == r.Last {
			single = append(single, r)
		} else {
			ranges = append(ranges, r)
		}
	}
	chosen, _ := shapeOf(len(single), len(ranges), min(len(numbers), 2), len(numbers), costConcat, l.lists.least)
	if chosen == (shape{}) {
		return nil, ports
	}
	field := nft.Field{Kind: nft.FieldDport}
	if s == source {
		field.Kind = nft.FieldSport
	}
	if chosen.hash {
		name := l.portSet(listPorts, numbers, single)
		terms = append(terms, term{nft.MatchSet{Key: []nft.Field{{Kind: nft.FieldL4Proto}, field}, Set: name}})
	} else if !chosen.intervals {
		rest = single
	}
	switch {
	case chosen.intervals && !chosen.hash:
		ranges = merged
		fallthrough
	case chosen.intervals:
		name := l.portSet(listPortRanges, nil, ranges)
		for _, b := range before {
			terms = append(terms, slices.Concat(b, term{nft.MatchSet{Key: []nft.Field{field}, Set: name}}))
		}
	default:
		rest = append(rest, ranges...)
	}
	return terms, rest
}

// portSet makes a set of ports: with transports of single ones, else of ranges.
func (l *lowering) portSet(kind string, numbers []uint8, ports []model.PortRange) (name string) {
	b := make([]byte, 0, len(numbers)+4*len(ports))
	b = append(b, numbers...)
	for _, r := range ports {
		b = binary.BigEndian.AppendUint16(b, r.First)
		b = binary.BigEndian.AppendUint16(b, r.Last)
	}
	name = listName(kind, b)
	if l.sets[name] != nil {
		return name
	}
	value := func(port uint16) nft.Value { return nft.Value{Type: nft.TypeInetService, Num: uint64(port)} }
	set := &nft.Set{Name: name, Key: []nft.Type{nft.TypeInetService}, Interval: numbers == nil}
	for _, n := range numbers {
		for _, r := range ports {
			set.Elements = append(set.Elements, nft.Element{Key: []nft.Value{{Type: nft.TypeInetProto, Num: uint64(n)}, value(r.First)}})
		}
	}
	if set.Interval {
		for _, r := range ports {
			set.Elements = append(set.Elements, nft.Element{Key: []nft.Value{value(r.First), value(r.Last)}})
		}
	} else {
		set.Key = []nft.Type{nft.TypeInetProto, nft.TypeInetService}
	}
	l.sets[name] = set
	return name
}

// used drops the sets that none of a policy's matches asks.
func used(sets map[string]*nft.Set, asks []nft.Statement) map[string]*nft.Set {
	if len(sets) == 0 {
		return nil
	}
	named := make(map[string]*nft.Set)
	for _, s := range asks {
		if m, ok := s.(nft.MatchSet); ok && sets[m.Set] != nil {
			named[m.Set] = sets[m.Set]
		}
	}
	return named
}

// listSets adds the sets of the lists that rules name to the table.
func (a *assembly) listSets(policies map[string]*chains) {
	all := make(map[string]*nft.Set)
	for _, c := range policies {
		maps.Copy(all, c.lists)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a.table.Sets = append(a.table.Sets, *all[name])
	}
}
