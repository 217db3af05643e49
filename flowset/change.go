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
