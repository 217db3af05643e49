package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// deed is one thing that somebody does, after a pause.
type deed struct {
	pause time.Duration
	what  string
	n     int    // which one
	text  string // a policy, or the arguments of a command
}

func (d deed) String() string {
	text, _, more := strings.Cut(d.text, "\n")
	if more {
		text += " ..."
	}
	return strings.TrimSpace(fmt.Sprintf("%v %s %d %s", d.pause, d.what, d.n, text))
}

// hands are those who do things at the same time, in one order each.
type hands struct {
	edits, births, services, netns, foreign, kills []deed
}

func (h hands) String() string {
	return fmt.Sprintf("edits %v\nbirths %v\nforeign %v\nkills %v\nnetns %v\nservices %v", h.edits, h.births, h.foreign, h.kills, h.netns, h.services)
}

// soakPhase returns what is done between two quiet moments. It depends on its
// arguments alone. All hands are busy in one of four phases; in the others
// nobody touches nftables or the controller, so that nothing hides behind that.
func soakPhase(seed uint64, phase int) hands {
	var h hands
	hand := func(number uint64, n, milliseconds int, draw func(r *rand.Rand) deed) []deed {
		r := rand.New(rand.NewPCG(seed, uint64(phase)<<8|number))
		list := make([]deed, n)
		for i := range list {
			pause := time.Duration(r.IntN(milliseconds)) * time.Millisecond
			list[i] = draw(r)
			list[i].pause = pause
		}
		return list
	}
	h.edits = hand(1, 8, 200, drawEdit)
	for i := range h.edits { // what is broken is mended soon: nothing starts meanwhile
		if d := &h.edits[i]; i%2 == 1 && d.what != "save" {
			d.what, d.text = "rename", drawPolicy(rand.New(rand.NewPCG(seed, uint64(phase*100+i))))
		}
	}
	h.births = hand(2, 16, 100, func(r *rand.Rand) deed {
		return deed{what: pick(r, "user", "user", "user", "other", "storm"), n: r.IntN(20)}
	})
	h.services = hand(3, 10, 150, func(r *rand.Rand) deed {
		return deed{what: pick(r, "web", "unit", "later"), n: r.IntN(3)}
	})
	if phase%4 != 2 {
		h.netns = hand(4, 2, 600, func(r *rand.Rand) deed {
			return deed{what: pick(r, "remake", "remake", "away"), n: r.IntN(300)}
		})
	}
	if phase%4%2 == 1 {
		h.foreign = hand(5, 4, 500, func(r *rand.Rand) deed {
			return deed{what: pick(r, "host", "host", "blue"), text: pick(r, foreignCommands...)}
		})
	}
	if phase%4 == 1 || phase%4 == 2 {
		h.kills = hand(6, 3, 600, func(r *rand.Rand) deed {
			return deed{what: pick(r, "kill", "kill", "kill", "stop", "hangup"), n: r.IntN(300)}
		})
	}
	return h
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// foreignCommands are what others do to nftables.
var foreignCommands = []string{
	"flush ruleset", "flush ruleset", "flush ruleset",
	"delete table inet sockns",
	"insert rule inet sockns input accept",
	"insert rule inet sockns output accept",
	"flush chain inet sockns input",
	"flush chain inet sockns output",
	"add chain inet sockns stranger",
	"flush table inet sockns",
	"add table inet others",
	"add rule inet sockns input counter drop",
}

// drawEdit draws a policy, or something that is none.
func drawEdit(r *rand.Rand) deed {
	d := deed{what: pick(r, "rename", "rename", "rename", "save", "broken", "half", "vanish"), text: drawPolicy(r)}
	switch d.what {
	case "broken":
		d.text = pick(r,
			strings.Replace(d.text, "socketNamespaces", "socketNamspaces", 1),
			strings.Replace(d.text, "  db:\n", "  db:\n    accept: [{from: nobody}]\n", 1), // twice, and unknown
			strings.Replace(d.text, "\n  a:", "\n\ta:", 1),
			"", "apiVersion: sockns/v7\n")
	case "half":
		d.text = d.text[:strings.LastIndex(d.text, "default")] + "default: {connect: den"
	}
	return d
}

// The ports of the servers of db. No policy allows anybody the last one.
const (
	soakFirst  = 41001
	soakLast   = 41004
	soakCanary = 41005
	soakOther  = 41006 // of a server that nobody manages
	soakWeb    = 41007 // of web's, which is often restarted
)

// drawPolicy draws a policy for the cgroups below $CG and the network
// namespace $BLUE. $FILL makes each one recognisable.
func drawPolicy(r *rand.Rand) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	ports := func() string {
		first := soakFirst + r.IntN(soakLast-soakFirst+1)
		if r.IntN(3) == 0 {
			return fmt.Sprintf("%q", fmt.Sprintf("%d-%d", first, soakLast))
		}
		return fmt.Sprint(first)
	}
	action := func() string {
		if r.IntN(3) == 0 {
			return fmt.Sprintf("action: deny, error: %s, ", pick(r, "ECONNREFUSED", "EACCES", "EHOSTUNREACH"))
		}
		return ""
	}
	connect := func(peers ...string) {
		line("    connect:")
		for range 1 + r.IntN(3) {
			line("      - {%sports: %s, protocol: [tcp, udp], to: %s}", action(), ports(), pick(r, peers...))
		}
		if r.IntN(2) == 0 {
			line("      - {%sports: [%d, %d], protocol: [tcp, udp], to: any}", action(), soakOther, soakWeb)
		}
	}
	accept := func(peers ...string) {
		line("    accept:")
		for range 1 + r.IntN(4) {
			line("      - {%sports: %s, protocol: [tcp, udp], from: %s}", action(), ports(), pick(r, peers...))
		}
	}
	line("apiVersion: sockns/v1\ndeviceNamespaces: {blue: {netns: $BLUE}}\nsocketNamespaces:")
	line("  a:\n    members: [{cgroup: $CG/a}]")
	connect("any", "db", "unmanaged")
	peers := []string{"any", "unmanaged", "a", "user", "web", "[a, user]"}
	if r.IntN(4) > 0 {
		line("  b:\n    members: [{cgroup: $CG/b}, {cgroup: $CG/later/b}]")
		connect("any", "db", "web")
		peers = append(peers, "b", "[b, web]")
	}
	line("  user:\n    each: $CG/users/u-*")
	connect("any", "db")
	line("  prod:\n    members: [{cgroup: $CG/prod}]")
	line("  web:\n    members: [{cgroup: $CG/prod/web}]")
	connect("any", "db", "unmanaged")
	line("    accept:\n      - {%sports: %d, from: %s, protocol: tcp}", action(), soakWeb, pick(r, "any", "a", "unmanaged", "user"))
	line("  svc:\n    members: [{unit: $UNIT}]")
	connect("any")
	line("  db:\n    members: [{cgroup: $CG/db}]")
	accept(peers...)
	line("  bc:\n    deviceNamespace: blue\n    members: [{cgroup: $CG/bc}]")
	connect("any", "bd")
	line("  bd:\n    deviceNamespace: blue\n    members: [{cgroup: $CG/bd}]")
	accept("any", "unmanaged", "bc")
	line("$FILL    default: {connect: deny}")
	return b.String()
}

// fill adds n namespaces whose members do not exist.
func fill(text string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  fill-%d:\n    members: [{cgroup: $CG/absent/%d}]\n", i, i)
	}
	return strings.Replace(text, "$FILL", b.String(), 1)
}

// TestSoakPlan: a seed is one plan, and another seed another.
func TestSoakPlan(t *testing.T) {
	one, again, other := soakPhase(7, 3), soakPhase(7, 3), soakPhase(8, 3)
	if !slices.Equal(one.edits, again.edits) || one.String() != again.String() {
		t.Errorf("%v\n%v", one, again)
	}
	if one.String() == other.String() || one.String() == soakPhase(7, 4).String() {
		t.Error("it does not depend on the seed or the phase")
	}
}
