package flowset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// Change is a set of flows that two policies answer differently, in the words
// of the language. An empty list of words means all there are.
type Change struct {
	Namespaces []string   `json:"namespaces"` // whose sockets; more than one where all change alike
	Device     string     `json:"deviceNamespace"`
	Hook       model.Hook `json:"-"`
	HookName   string     `json:"hook"`
	Protocols  []string   `json:"protocols,omitempty"`
	Ports      []string   `json:"ports,omitempty"`
	Local      []string   `json:"local,omitempty"` // empty: the namespace's own addresses
	Peers      []string   `json:"peers,omitempty"`
	From       string     `json:"from"` // "allow" or an errno
	To         string     `json:"to"`
}

// Compare returns the flows that policy b answers differently than policy a,
// in the order of the policies. It is exact: there is a change if, and only if,
// some flow is decided differently by a hook. A policy in audit refuses nothing.
func Compare(a, b *model.Policy) []Change {
	c := newComparison(a, b)
	list := []Change{} // not nil: it was compared
	places := make(map[string]int)
	for _, s := range c.subjects() {
		for _, h := range model.Hooks {
			u, boxes := c.differences(s, h)
			if len(boxes) == 0 {
				continue
			}
			for _, change := range c.describe(s, h, u, boxes) {
				// The same change of many namespaces is told once.
				key := fmt.Sprint(change.Device, h, change.Protocols, change.Ports, change.Local, change.Peers, change.From, change.To)
				if i, ok := places[key]; ok {
					list[i].Namespaces = append(list[i].Namespaces, s.name)
					continue
				}
				places[key] = len(list)
				list = append(list, change)
			}
		}
	}
	return list
}

// describe puts boxes into words. Those that differ in their peers alone are
// one change.
func (c *comparison) describe(s subject, h model.Hook, u *universe, boxes []Labeled) []Change {
	w := words{c, s, u, h, c.possible(s, u)}
	var list []Change
	places := make(map[string]int)
	for _, b := range boxes {
		p := pairOf(b.Label)
		change := Change{
			Namespaces: []string{s.name}, Device: s.device, Hook: h, HookName: h.String(),
			Protocols: w.protocols(b.Box[dimProtocol]), Ports: w.ports(b.Box[dimPort]),
			Local: w.local(b.Box), From: answer(p.a), To: answer(p.b),
		}
		if h == model.Bind {
			list = append(list, change)
			continue
		}
		change.Peers = []string{w.peers(b.Box)}
		key := fmt.Sprint(change.Protocols, change.Ports, change.Local, change.From, change.To)
		if i, ok := places[key]; ok {
			list[i].Peers = append(list[i].Peers, change.Peers...)
			continue
		}
		places[key] = len(list)
		list = append(list, change)
	}
	for _, change := range list { // the plain ones first
		slices.SortStableFunc(change.Peers, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	}
	return list
}

func answer(label int) string {
	if e := errnoOf(label); e != "" {
		return string(e)
	}
	return string(model.Allow)
}

// String returns the change as a line: "web may connect db tcp/5432 (was
// ECONNREFUSED)".
func (c Change) String() string {
	const most = 3
	who := strings.Join(c.Namespaces[:min(most, len(c.Namespaces))], ", ")
	if more := len(c.Namespaces) - most; more > 0 {
		who += fmt.Sprintf(" and %d more", more)
	}
	if c.Device != model.HostDevice {
		who += " in " + c.Device
	}
	may := "may"
	if c.To != string(model.Allow) {
		may = "may not"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", who, may, c.Hook)
	if c.Hook == model.Accept {
		b.WriteString(" from")
	}
	if c.Hook != model.Bind {
		b.WriteString(" " + strings.Join(c.Peers, "; "))
	}
	b.WriteString(c.traffic())
	if len(c.Local) > 0 {
		b.WriteString(" on " + strings.Join(c.Local, ", "))
	}
	switch string(model.Allow) {
	case c.From:
		fmt.Fprintf(&b, ": %s (was allowed)", c.To)
	case c.To:
		fmt.Fprintf(&b, " (was %s)", c.From)
	default:
		fmt.Fprintf(&b, ": %s (was %s)", c.To, c.From)
	}
	return b.String()
}

func (c Change) traffic() string {
	protocols, ports := strings.Join(c.Protocols, ","), strings.Join(c.Ports, ",")
	switch {
	case ports == "" && protocols == "":
		return ""
	case ports == "":
		return " " + protocols
	case protocols == "":
		return " port " + ports
	}
	return fmt.Sprintf(" %s/%s", protocols, ports)
}

// Sign returns "+" for flows that become allowed, "-" for those that become
// refused, and "~" for those that get another errno.
func (c Change) Sign() string {
	switch string(model.Allow) {
	case c.To:
		return "+"
	case c.From:
		return "-"
	}
	return "~"
}

// words puts the sets of one subject's boxes into words.
type words struct {
	c       *comparison
	s       subject
	u       *universe
	h       model.Hook
	classes Set // that a peer can have
}

func (w words) protocols(s Set) []string {
	all := allProtocols
	if w.h == model.Accept {
		all = identifying
	}
	if s.Covers(all) {
		return nil
	}
	var list []string
	for i, p := range model.Protocols {
		if s.Contains(Point{Lo: uint64(i)}) {
			list = append(list, string(p))
		}
	}
	return list
}

func (w words) ports(s Set) []string {
	if s.Covers(allPorts.Minus(port0)) || s.Equal(port0) && w.h != model.Bind {
		return nil
	}
	var list []string
	for _, r := range s {
		list = append(list, model.PortRange{First: uint16(r.First.Lo), Last: uint16(r.Last.Lo)}.String())
	}
	return list
}

// local says on which local addresses; nothing for the namespace's own.
func (w words) local(b Box) []string {
	s := b[dimLocal]
	everything := domain(w.h, w.u)[dimLocal]
	for _, world := range []*world{w.c.b, w.c.a} {
		n := world.resident(w.s.name, w.s.device)
		if n == nil {
			continue
		}
		mine := own(n).Union(unknown).Union(picked).Intersect(everything)
		if w.h != model.Bind {
			mine = mine.Intersect(w.c.bindable(w.s))
		}
		// The families that the box has no peers of are not its fault.
		for _, family := range [...]Set{{whole(space4)}, {whole(space6)}} {
			if w.h != model.Bind && b[dimAddress].Intersect(family).Empty() {
				mine = mine.Minus(family).Minus(asPicked(family))
			}
		}
		if s.Equal(mine) || s.Equal(mine.Minus(unknown)) {
			return nil
		}
	}
	if s.Equal(everything) || w.h != model.Bind && s.Equal(everything.Intersect(w.c.bindable(w.s))) {
		return []string{"any"}
	}
	var list []string
	addresses := s.Intersect(bound)
	chosen := fromPicked(s.Intersect(picked))
	if w.h == model.Bind {
		if !s.Intersect(unknown).Empty() {
			list = append(list, "the wildcard")
		}
		return append(list, addressWords(addresses)...)
	}
	if addresses.Equal(chosen) {
		return addressWords(addresses)
	}
	list = addressWords(addresses)
	switch {
	case chosen.Covers(bound.Minus(wildcards)) || chosen.Empty() && !s.Intersect(unknown).Empty():
		list = append(list, "what the kernel picks")
	case !chosen.Empty():
		list = append(list, "what the kernel picks of "+strings.Join(addressWords(chosen), ", "))
	}
	return list
}

// fromPicked is the inverse of asPicked.
func fromPicked(s Set) Set {
	t := slices.Clone(s)
	for i := range t {
		t[i].First.Space -= spacePicked4 - space4
		t[i].Last.Space -= spacePicked4 - space4
	}
	return t
}

// addressWords writes addresses as the language does, or those that are left
// out if they are fewer. The wildcard addresses, which no socket has, don't
// tear a range.
func addressWords(s Set) []string {
	if rest := bound.Minus(wildcards).Minus(s); len(rest) > 0 && len(rest) < len(s.Intersect(bound)) {
		return []string{"any but " + strings.Join(addressWords(rest), ", ")}
	}
	var list []string
	for _, r := range s {
		if last, ok := r.Last.next(); !ok || last.Space == space4 && last.Lo > 1<<32-1 {
			if r.First.Hi == 0 && r.First.Lo == 1 {
				r.First.Lo = 0
			}
		}
		if r.First.Space != spaceUnknown {
			list = append(list, model.AddressRange{First: addressOf(r.First), Last: addressOf(r.Last)}.String())
		}
	}
	return list
}

func (w words) peers(b Box) string {
	addresses := b[dimAddress]
	everywhere := addresses.Covers(bound)
	if !everywhere { // of the families that the local addresses have
		rest := bound.Minus(addresses)
		for _, family := range [...]Set{{whole(space4)}, {whole(space6)}} {
			if b[dimLocal].Intersect(unknown).Empty() && b[dimLocal].Intersect(family.Union(asPicked(family))).Empty() {
				rest = rest.Minus(family)
			}
		}
		everywhere = rest.Empty()
	}
	who := w.who(b[dimPeer], b[dimProtocol])
	where := strings.Join(addressWords(addresses), ", ")
	switch {
	case everywhere && who == "":
		return "any"
	case everywhere:
		return who
	case who == "":
		return where
	}
	return who + " at " + where
}

// who names the classes of a set, or those that it lacks if they are fewer;
// nothing if it lacks none.
func (w words) who(s Set, protocols Set) string {
	if protocols.Intersect(identifying).Empty() {
		return "" // nobody is known
	}
	in, out := w.names(s), w.names(w.classes.Minus(s))
	switch {
	case len(out) == 0:
		return ""
	case len(out) < len(in):
		return "any but " + strings.Join(out, ", ")
	}
	return strings.Join(in, ", ")
}

func (w words) names(s Set) []string {
	var list []string
	for _, class := range []struct {
		class int
		name  string
	}{
		{classSelf, "self"}, {classSibling, "other instances of " + w.s.name}, {classUnmanaged, "unmanaged"}, {classOther, "other namespaces"},
		{classOtherFirst, "namespaces that go"}, {classOtherLast, "namespaces that come"}, {classElsewhere, "other machines and device namespaces"},
	} {
		if w.classes.Contains(Point{Lo: uint64(class.class)}) && s.Contains(Point{Lo: uint64(class.class)}) {
			list = append(list, class.name)
		}
	}
	for i, name := range w.u.named {
		if s.Contains(Point{Lo: uint64(classNamed + i)}) {
			list = append(list, name)
		}
	}
	return list
}
