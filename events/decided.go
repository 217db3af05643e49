package events

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sockns/sockns/model"
)

// Decided is what an event of kind [Decision] is about: a connect, accept or
// bind that was refused, would have been refused, or was allowed by a rule that
// logs. Event.Namespace is the namespace whose rules decided.
type Decided struct {
	Action   model.Action   `json:"action"`
	Mode     model.Mode     `json:"mode"` // audit: denied, and happened all the same
	Tier     Tier           `json:"tier"`
	Hook     string         `json:"hook"`
	Protocol model.Protocol `json:"protocol"`
	// Source and Destination are the two ends. Of a bind, Source is the end that
	// was bound, and Destination the other end of the packet that came to it or
	// from it, if one told. Port 0 is one that was not picked yet.
	Source      netip.AddrPort `json:"source,omitzero"`
	Destination netip.AddrPort `json:"destination,omitzero"`
	// Peer is the socket namespace of the other end, or unmanaged; empty where
	// the kernel does not tell it.
	Peer string `json:"peer,omitempty"`
	// OneOf are the namespaces that share the rules that decided, where the
	// kernel does not tell which of them it was. Event.Namespace is empty then.
	OneOf []string `json:"oneOf,omitempty"`
	Rule  int      `json:"rule"` // from 1; 0: the default
	Text  string   `json:"text"` // the rule in words
	// At is the place of the rule, or of what says the default.
	At      model.Position `json:"at"`
	Errno   model.Errno    `json:"errno,omitempty"` // that the application gets
	Process *Actor         `json:"process,omitempty"`
	UID     *uint32        `json:"uid,omitempty"` // who made the sending socket, where that is all that is known
	// Count is how many decisions like this one the event stands for, from
	// Since to Event.Time.
	Count uint64    `json:"count"`
	Since time.Time `json:"since,omitzero"`
	// Unreported is how many of this rule were counted and not told one by one,
	// as in a flood: a bounded number is told each second. Count is 0 then, and
	// there are no ends. All Counts and Unreported of a rule are all that it decided.
	Unreported uint64 `json:"unreported,omitempty"`
	// Behind says that enforcing would not have come to this decision: an earlier
	// one about the same packet would have refused it. In audit all are told, so
	// that what has to be allowed can be learned at once.
	Behind bool `json:"behind,omitempty"`
}

// Tier says which tier decided.
type Tier string

// The tiers.
const (
	Syscalls Tier = "syscalls"
	Packets  Tier = "packets"
)

// Verb returns what became of it: refused, "would refuse" or allowed.
func (d *Decided) Verb() string {
	switch {
	case d.Action == model.Allow:
		return "allowed"
	case d.Mode == model.Audit:
		return "would refuse"
	}
	return "refused"
}

// Flow returns the ends: "tcp 10.0.0.1:40000 -> 10.0.0.2:22 (db)".
func (d *Decided) Flow() string {
	var b strings.Builder
	b.WriteString(string(d.Protocol))
	if d.Source.IsValid() {
		b.WriteString(" " + endText(d.Source))
	}
	if d.Destination.IsValid() && d.Hook == model.Bind.String() {
		b.WriteString(" for " + endText(d.Destination))
	} else if d.Destination.IsValid() {
		b.WriteString(" -> " + endText(d.Destination))
	}
	if d.Peer != "" && d.Hook == model.Accept.String() {
		b.WriteString(" (from " + d.Peer + ")")
	} else if d.Peer != "" {
		b.WriteString(" (" + d.Peer + ")")
	}
	return b.String()
}

// endText leaves out what is not known yet.
func endText(a netip.AddrPort) string {
	switch {
	case a.Addr().IsUnspecified() && a.Port() == 0:
		return "*"
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
}

// RuleText returns the rule and its place: "connect rule 3 at policy.yaml:12".
func (d *Decided) RuleText() string {
	rule := "default"
	if d.Rule > 0 {
		rule = fmt.Sprintf("rule %d", d.Rule)
	}
	text := d.Hook + " " + rule
	if d.At.File != "" {
		text += fmt.Sprintf(" at %s:%d", d.At.File, d.At.Line)
	}
	return text
}

// String returns the decision as the message of its event.
func (d *Decided) String() string {
	var b strings.Builder
	if d.Count == 0 {
		fmt.Fprintf(&b, "%s %d more than are told one by one", d.Verb(), d.Unreported)
	} else {
		fmt.Fprintf(&b, "%s %s", d.Verb(), d.Flow())
	}
	if d.Errno != "" {
		fmt.Fprintf(&b, " with %s", d.Errno)
	}
	fmt.Fprintf(&b, " by %s", d.RuleText())
	if len(d.OneOf) > 0 {
		fmt.Fprintf(&b, " of one of %s", strings.Join(d.OneOf, ", "))
	}
	if d.Process != nil {
		fmt.Fprintf(&b, ", %s", d.Process)
	}
	if d.Count > 1 {
		fmt.Fprintf(&b, ", %d times", d.Count)
	}
	if d.Behind {
		b.WriteString(", behind another")
	}
	return b.String()
}
