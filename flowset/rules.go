package flowset

import (
	"cmp"
	"slices"

	"github.com/sockns/sockns/model"
)

// Lists is what the lists of rules of one policy say, each as if its namespace
// were not in audit. It is not safe for concurrent use.
type Lists struct {
	c      *comparison // of the policy with itself
	limit  int
	lists  map[subject]*[len(model.Hooks)]*List
	denied map[string][]denied  // by the name of a namespace
	bound  map[string][]Labeled // by the name of a namespace
}

// NewLists prepares the analysis of a policy.
func NewLists(p *model.Policy) *Lists {
	return &Lists{
		c: newComparison(p, p), limit: limit, lists: make(map[subject]*[len(model.Hooks)]*List),
		denied: make(map[string][]denied), bound: make(map[string][]Labeled),
	}
}

// List is what the rules of one hook of a namespace say.
type List struct {
	all     *Lists
	n       *model.SocketNamespace
	hook    model.Hook
	u       *universe
	flows   bounds
	space   *space
	clauses []clause
	ids     []int // the first clause of the same rule with the same answer
	starts  []int // where the clauses of each rule begin, and where the last one's end
	// from[k] is which clause decides if there were those from k on alone;
	// decides is which one does, or outside where no flow is.
	from    []*Diagram
	decides *Diagram
	none    *Diagram // which clause would decide without bind rules; nil until it is asked for
	uses    []Use    // once they were asked for
}

// limit is how many edges the diagrams of a list may have, together: 100 MB, and
// a few seconds. It takes hundreds of rules, each with another range of ports that
// overlaps those of the others and other addresses, to need more.
const limit = 1_000_000

// Exact reports whether the list could be looked at. Of one whose rules cut the
// flows into too many pieces nothing is said.
func (l *List) Exact() bool { return !l.space.full() }

// outside labels the points that no flow has.
const outside = -1

// Of returns the list of a hook of a namespace of the policy.
func (a *Lists) Of(n *model.SocketNamespace, h model.Hook) *List {
	at := subject{n.Name, n.Device}
	known := a.lists[at]
	if known == nil {
		known = new([len(model.Hooks)]*List)
		a.lists[at] = known
	}
	if known[h] == nil {
		known[h] = a.read(n, h)
	}
	return known[h]
}

func (a *Lists) read(n *model.SocketNamespace, h model.Hook) *List {
	s := subject{n.Name, n.Device}
	u := newUniverse(n.Device, n.Name, h, a.c.a)
	l := &List{all: a, n: n, hook: h, u: u, space: newSpace(domain(h, u)), flows: bounds{h, a.c.possible(s, u), a.c.a.mayHave(n)}}
	l.space.limit = a.limit
	w := l.writer(n)
	w.write()
	l.clauses, l.starts = w.out, w.starts
	l.number()
	last := len(l.clauses) - 1
	l.from = make([]*Diagram, last+1)
	l.from[last] = l.space.constant(l.ids[last])
	for k := last - 1; k >= 0; k-- {
		l.from[k] = l.space.paint(l.from[k+1], &l.clauses[k].box, l.ids[k])
	}
	flows := l.space.constant(0)
	for _, box := range l.flows.excluded(l.space.domain) {
		flows = l.space.paint(flows, &box, outside)
	}
	l.decides = l.space.apply(l.from[0], flows, func(id, flow int) int {
		if flow == outside {
			return outside
		}
		return id
	})
	return l
}

// writer writes clauses for a namespace with the name of the list's. Where a
// rule names an errno that an unnamed denial of a bind can have too, the latter
// gets its own.
func (l *List) writer(n *model.SocketNamespace) *list {
	w := &list{world: l.all.c.a, u: l.u, n: n, hook: l.hook, all: l.space.domain}
	named := func(e model.Errno) bool { return e == model.EACCES || e == model.EADDRINUSE }
	if l.hook == model.Bind && (slices.ContainsFunc(l.n.Bind, func(r model.Rule) bool { return named(r.Error) }) || l.n.Default.Bind != nil && named(l.n.Default.Bind.Error)) {
		s := subject{l.n.Name, l.n.Device}
		w.taken = func(proto model.Protocol, local Set) Set {
			return l.all.c.claimsA[s.device][l.all.c.breadth(l.all.c.a, s, proto, local)].but(s.name)
		}
	}
	return w
}

// number finds the clauses that are told apart by nothing.
func (l *List) number() {
	for k := len(l.ids); k < len(l.clauses); k++ {
		id := k
		for before := k - 1; before >= 0 && l.clauses[before].rule == l.clauses[k].rule && l.clauses[before].by == l.clauses[k].by; before-- {
			if l.clauses[before].label == l.clauses[k].label {
				id = l.ids[before]
			}
		}
		l.ids = append(l.ids, id)
	}
}

// sameAnswer reports whether two clauses answer alike, and are logged alike.
func (l *List) sameAnswer(a, b int) bool {
	logged := func(c *clause) bool { return c.rule > 0 && l.n.Rules(l.hook)[c.rule-1].Log }
	x, y := &l.clauses[a], &l.clauses[b]
	return x.label == y.label && logged(x) == logged(y)
}

// boxes returns what a rule says it matches; a copy with fewer peers does too.
func (l *List) boxes(r *model.Rule) []clause {
	w := l.writer(l.n)
	w.rule(r)
	return w.out
}

// Speaks reports whether there are flows that a rule matches, whether or not
// another decides them. The rule may be a changed copy of one of the list.
func (l *List) Speaks(r *model.Rule) bool {
	return slices.ContainsFunc(l.deciders(r), func(id int) bool { return id != outside })
}

// deciders returns the ids of the clauses that decide the flows that a rule
// matches, and outside if some of its points are none.
func (l *List) deciders(r *model.Rule) []int {
	var ids []int
	anything := l.space.constant(0)
	for _, c := range l.boxes(r) {
		l.space.walk(l.decides, anything, &c.box, func(id, _ int) { ids = append(ids, id) })
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Deciding is what decides flows: a rule of the list, or what holds without one.
type Deciding struct {
	By   Decider
	Rule int // index in the list from 1, if By is Rule
}

// deciding returns what clauses are, each once, rules first.
func (l *List) deciding(ids []int) []Deciding {
	var list []Deciding
	for _, id := range ids {
		if id != outside {
			list = append(list, Deciding{l.clauses[id].by, l.clauses[id].rule})
		}
	}
	slices.SortFunc(list, func(a, b Deciding) int { return cmp.Or(cmp.Compare(a.By, b.By), cmp.Compare(a.Rule, b.Rule)) })
	return slices.Compact(list)
}
