package compiler

import "math/bits"

// What parts of rules cost a packet in nanoseconds, measured on loopback where
// sending a datagram took 600: what matters is how they compare.
// BenchmarkLookup measures the same on any machine.
const (
	costRule    = 3  // of a rule, besides what it says
	costCompare = 6  // load something from the packet or its metadata, compare it
	costLookup  = 18 // hash, flat to 100,000 elements
	costConcat  = 29 // hash of several fields
	costCgroup  = 10 // more, if a field is the socket's cgroup
	costUpdate  = 71 // of a dynamic set
	costWrite   = 6  // of a priority or mark, a count, a jump
)

// costIntervals is a lookup in a set of intervals (a red-black tree), by the
// number of intervals in powers of two: of 1 to 64 in units of costLookup by
// BenchmarkLookup, where a hash of addresses is the same; of 1,000, 10,000 and
// 100,000 140, 190 and 236 ns measured, the others between.
var costIntervals = [...]int{25, 32, 40, 48, 60, 70, 78, 90, 107, 123, 140, 155, 170, 185, 198, 212, 225, 238}

// costOfIntervals returns what a lookup in a set of n intervals costs.
func costOfIntervals(n int) int {
	return costIntervals[min(bits.Len(uint(max(n, 1)-1)), len(costIntervals)-1)]
}

// What the kernel's memory holds, in bytes, measured by loading many of each
// (Slab and Percpu of /proc/meminfo).
const (
	bytesRule      = 420      // with a counter and the policy's words
	bytesHash      = 460      // a set without elements
	bytesExact     = 125      // an element of it
	bytesIntervals = 16 << 10 // a set of intervals
	bytesInterval  = 145      // one of them, which is two elements
)

// How the parts of a price compare.
const (
	// nsOfKiB is what a KiB of the kernel's memory is worth: ten thousand namespaces
	// may take tens of MiB, and each of their packets a few hundred nanoseconds.
	nsOfKiB = 2
	// nsOfSet is what it is worth to have one set less: making them is quadratic in
	// their number (1,000 of them 0.1 s, 4,000 0.6 to 0.9 s, 16,000 8 s).
	nsOfSet = 10
	// mostListSets bounds how many there are for lists of rules; the longest get them.
	mostListSets = 1000
	// placesOfRule is where a rule is written: in output and in input, or for two transports.
	placesOfRule = 2
)

// price is what a shape of a list costs.
type price struct {
	ns    int // the packet that passes all of it
	bytes int // of the kernel's memory
	sets  int
}

func (p price) plus(o price) price { return price{p.ns + o.ns, p.bytes + o.bytes, p.sets + o.sets} }

// score makes one number of a price, for comparing.
func (p price) score() int { return p.ns + nsOfKiB*p.bytes>>10 + nsOfSet*p.sets }

func priceOfRules(n int) price {
	return price{ns: n * (costRule + costCompare), bytes: n * bytesRule * placesOfRule}
}

func priceOfHash(elements, lookup int) price {
	return price{ns: costRule + lookup, bytes: bytesHash + elements*bytesExact, sets: 1}
}

func priceOfIntervals(n int) price {
	return price{ns: costRule + costCompare + costOfIntervals(n), bytes: bytesIntervals + n*bytesInterval, sets: 1}
}

// shape is how a list of single values and ranges is written: its zero value is
// a rule for each.
type shape struct {
	hash      bool // single values in a hash set
	intervals bool // ranges in a set of intervals; without hash single values too
}

// shapeOf picks the shape of a list that is the cheapest by the figures above,
// for sets of at least some number of elements. ways is how many rules each value takes
// that is in no set (a port of two transports: 2), elements how many of a hash
// set, lookup what a lookup there costs. It looks at the list alone, as if one rule
// named it: otherwise rules would change with others that name the same.
//
// A set of concatenated intervals (pipapo: address and port in one lookup, what
// would hold the disjoint cells of several rules) is not among the shapes, because it
// never is the cheapest: it takes 96 KiB and 350 bytes an element, and copies itself for each
// that is added. Measured as the figures above, a lookup is 50 ns up to 1,000
// elements and 80 at 10,000: with 100 ranges 59 ns and 131 KiB against 99 ns and 30 KiB of a
// set of intervals, with 1,000 59 ns and 438 KiB against 149 ns and 158 KiB. In place of the rules of a
// list it would have to save 200 ns, which are twenty rules without lists, and could not
// count, log or name one rule apart from another; and where cells meet the kernel
// takes the order of insertion for that of rules.
func shapeOf(single, ranges, ways, elements, lookup, least int) (best shape, cost price) {
	rules := func(n int) price { return priceOfRules(n * ways) }
	cost = rules(single + ranges)
	try := func(s shape, p price, smallest int) {
		if smallest >= least && p.score() < cost.score() {
			best, cost = s, p
		}
	}
	if single > 0 {
		try(shape{hash: true}, priceOfHash(single*elements, lookup).plus(rules(ranges)), single)
	}
	if ranges > 0 {
		all := priceOfIntervals(single + ranges)
		all.ns *= ways
		try(shape{intervals: true}, all, single+ranges)
	}
	if single > 0 && ranges > 0 {
		both := priceOfIntervals(ranges)
		both.ns *= ways
		try(shape{hash: true, intervals: true}, priceOfHash(single*elements, lookup).plus(both), min(single, ranges))
	}
	return best, cost
}
