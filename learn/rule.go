package learn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/model"
)

// Rule is a learned rule: it allows each of the protocols, on each of the
// ports, with each of the peers.
type Rule struct {
	Hook      model.Hook
	Local     string // empty: the namespace's own addresses
	Protocols []model.Protocol
	Ports     []model.PortRange
	Peers     []string
	Count     uint64
	First     time.Time
	Last      time.Time
	Note      string
}

// String returns the rule as an item of YAML.
func (r Rule) String() string {
	var keys []string
	add := func(key string, values []string) {
		for i, v := range values {
			if strings.ContainsAny(v, ":") {
				values[i] = `"` + v + `"` // an IPv6 address
			}
		}
		switch len(values) {
		case 0:
		case 1:
			keys = append(keys, key+": "+values[0])
		default:
			keys = append(keys, key+": ["+strings.Join(values, ", ")+"]")
		}
	}
	add("protocol", words(r.Protocols))
	var ports []string
	for _, p := range r.Ports {
		if p.First == p.Last {
			ports = append(ports, p.String())
		} else {
			ports = append(ports, `"`+p.String()+`"`)
		}
	}
	add("ports", ports)
	if r.Local != "" {
		add("local", []string{r.Local})
	}
	if r.Hook == model.Connect {
		add("to", slices.Clone(r.Peers))
	} else {
		add("from", slices.Clone(r.Peers))
	}
	return "{" + strings.Join(keys, ", ") + "}"
}

// Comment says how often and when, and what is to be known.
func (r Rule) Comment() string {
	var parts []string
	if r.Count > 0 {
		s := "seen " + counted(int(min(r.Count, 1<<62)), "time", "times")
		if !r.First.IsZero() {
			first, last := r.First.UTC(), r.Last.UTC()
			s += ", " + first.Format(time.DateTime)
			switch {
			case first.Truncate(time.Second).Equal(last.Truncate(time.Second)):
			case first.Truncate(24 * time.Hour).Equal(last.Truncate(24 * time.Hour)):
				s += " to " + last.Format(time.TimeOnly)
			default:
				s += " to " + last.Format(time.DateTime)
			}
			s += " UTC"
		}
		parts = append(parts, s)
	}
	if r.Note != "" {
		parts = append(parts, r.Note)
	}
	return strings.Join(parts, "; ")
}

func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, item := range list {
		out[i] = string(item)
	}
	return out
}

// box is a product of protocols, ports and peers.
type box struct {
	dims  [3][]string // protocols, ports, peers; sorted
	seen  seen
	notes []string
}

const (
	protocols = iota
	ports
	peers
)

// rulesOf merges needs to few rules that allow exactly them.
func rulesOf(needs []need) []Rule {
	type list struct {
		hook  model.Hook
		local string
	}
	units := make(map[list][]box)
	for _, w := range needs {
		at := list{w.hook, w.local}
		port := ""
		if w.ports != (model.PortRange{}) {
			port = fmt.Sprintf("%05d-%05d", w.ports.First, w.ports.Last)
		}
		b := box{dims: [3][]string{{string(w.protocol)}, {port}, {w.peer}}, seen: w.seen}
		if w.note != "" {
			b.notes = []string{w.note}
		}
		i := slices.IndexFunc(units[at], func(o box) bool { return equal(o.dims, b.dims) })
		if i < 0 {
			units[at] = append(units[at], b)
		} else {
			units[at][i] = join(units[at][i], b)
		}
	}
	keys := slices.SortedFunc(maps.Keys(units), func(a, b list) int {
		return cmp.Or(cmp.Compare(a.hook, b.hook), cmp.Compare(a.local, b.local))
	})
	var rules []Rule
	for _, at := range keys {
		for _, b := range fewest(units[at]) {
			rules = append(rules, ruleOf(at.hook, at.local, b))
		}
	}
	return rules
}

// fewest merges boxes along one dimension after the other, in the order that
// leaves the fewest.
func fewest(units []box) []box {
	var best []box
	for _, order := range [][3]int{
		{ports, peers, protocols}, {ports, protocols, peers}, {peers, ports, protocols},
		{peers, protocols, ports}, {protocols, ports, peers}, {protocols, peers, ports},
	} {
		boxes := units
		for _, d := range order {
			boxes = merge(boxes, d)
		}
		if best == nil || len(boxes) < len(best) {
			best = boxes
		}
	}
	slices.SortStableFunc(best, func(a, b box) int {
		return cmp.Or(
			slices.Compare(a.dims[ports], b.dims[ports]), slices.Compare(a.dims[protocols], b.dims[protocols]), slices.Compare(a.dims[peers], b.dims[peers]))
	})
	return best
}

// merge joins the boxes that differ in one dimension only.
func merge(boxes []box, dimension int) []box {
	var out []box
	index := make(map[string]int)
	for _, b := range boxes {
		var key strings.Builder
		for d, values := range b.dims {
			if d != dimension {
				fmt.Fprintf(&key, "%q|", values)
			}
		}
		i, ok := index[key.String()]
		if !ok {
			index[key.String()] = len(out)
			out = append(out, b)
			continue
		}
		out[i] = join(out[i], b)
	}
	return out
}

func join(a, b box) box {
	a.seen = a.seen.and(b.seen)
	for d := range a.dims {
		all := append(slices.Clone(a.dims[d]), b.dims[d]...)
		slices.Sort(all)
		a.dims[d] = slices.Compact(all)
	}
	if a.dims[ports][0] == "" { // all ports
		a.dims[ports] = a.dims[ports][:1]
	}
	for _, note := range b.notes {
		if !slices.Contains(a.notes, note) {
			a.notes = append(slices.Clone(a.notes), note)
		}
	}
	return a
}

func equal(a, b [3][]string) bool {
	for d := range a {
		if !slices.Equal(a[d], b[d]) {
			return false
		}
	}
	return true
}

func ruleOf(h model.Hook, local string, b box) Rule {
	r := Rule{
		Hook: h, Local: local, Count: b.seen.count, First: b.seen.first, Last: b.seen.last,
		Note: strings.Join(b.notes, "; "),
	}
	for _, proto := range model.Protocols { // the order of the language
		if slices.Contains(b.dims[protocols], string(proto)) {
			r.Protocols = append(r.Protocols, proto)
		}
	}
	for _, s := range b.dims[ports] {
		var p model.PortRange
		if _, err := fmt.Sscanf(s, "%05d-%05d", &p.First, &p.Last); err != nil {
			continue // no ports
		}
		if n := len(r.Ports); n > 0 && int(r.Ports[n-1].Last)+1 >= int(p.First) {
			r.Ports[n-1].Last = max(r.Ports[n-1].Last, p.Last)
		} else {
			r.Ports = append(r.Ports, p)
		}
	}
	for _, s := range b.dims[peers] {
		if s != "" {
			r.Peers = append(r.Peers, s)
		}
	}
	slices.SortStableFunc(r.Peers, comparePeers)
	return r
}

// comparePeers puts names first, then addresses and prefixes by their number.
func comparePeers(a, b string) int { return addressOf(a).Compare(addressOf(b)) }

func addressOf(peer string) netip.Addr {
	first, _, _ := strings.Cut(peer, "/")
	a, _ := netip.ParseAddr(first)
	return a
}
