package decisions

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/syscalls"
)

// The kernel counts each decision and reports a bounded number of them. What it
// counted beyond what came here is told as a number, so that both together are
// all that was decided. Figures are to be compared some time after they were
// read, once the reports of what they count have come ([Settle]). A report of a
// call says the how manieth it is, so that one that is later still is known to be
// in a number already; a packet that is later, which has no number, is told twice.

// Settle is how long after the kernel has counted a decision its report comes
// at the latest, on a machine that is not overwhelmed: it is held for 50 ms.
const Settle = 2 * time.Second

// account is what is known of one counter.
type account struct {
	name     string // of its rule
	begun    uint64 // its figure at the beginning
	expected uint64 // its figure if nothing goes untold
	last     uint64 // its figure when it was read
	// read is when it last was, or some time later: what it counted until then
	// was told.
	read time.Time
}

func newAccount(name string, figure uint64) *account {
	return &account{name: name, begun: figure, expected: figure, last: figure}
}

// missing takes a figure and returns how much of it was not told until now.
func (a *account) missing(figure uint64, now time.Time) uint64 {
	if figure < a.last { // somebody set it back: what is untold of it is not known
		*a = *newAccount(a.name, figure)
	}
	a.last, a.read = figure, now
	if figure <= a.expected {
		return 0
	}
	n := figure - a.expected
	a.expected = figure
	return n
}

// ledger has the accounts of one device namespace, of all that it has counted
// or told: the others begin at zero.
type ledger struct {
	counted   map[compiler.Telling]*account
	accepting map[compiler.Telling]uint64 // when it was read
}

// Begin takes what a table has counted when its packets begin to be heard of,
// or when the policy of a view that is in use by now was put in force.
func (s *Stream) Begin(device string, f *compiler.Tellings) {
	l := s.ledgers[device]
	if l == nil {
		l = &ledger{counted: make(map[compiler.Telling]*account)}
		s.ledgers[device] = l
	}
	for k, figure := range f.Counted {
		if a := l.counted[k]; a == nil || a.name != figure.Name {
			l.counted[k] = newAccount(strings.Clone(figure.Name), figure.Count)
		}
	}
	maps.DeleteFunc(l.counted, func(k compiler.Telling, _ *account) bool { _, there := f.Counted[k]; return !there })
	l.accepting = f.Accepting
}

// Edit is Begin where only the policies of some namespaces are others than before:
// what these have counted begins anew.
func (s *Stream) Edit(device string, f *compiler.Tellings, namespaces map[string]bool) {
	l := s.ledgers[device]
	if l == nil {
		return
	}
	for k, figure := range f.Counted {
		if a := l.counted[k]; k.Namespace != "" && (a == nil || a.name != figure.Name) {
			l.counted[k] = newAccount(strings.Clone(figure.Name), figure.Count)
		}
	}
	maps.DeleteFunc(l.counted, func(k compiler.Telling, _ *account) bool {
		_, there := f.Counted[k]
		return namespaces[k.Namespace] && !there
	})
	l.accepting = maps.Clone(l.accepting)
	maps.DeleteFunc(l.accepting, func(k compiler.Telling, _ uint64) bool { return namespaces[k.Namespace] })
	maps.Copy(l.accepting, f.Accepting)
}

// Forget says that a device namespace is not heard of any more.
func (s *Stream) Forget(device string) { delete(s.ledgers, device) }

// heard enters a packet that was logged.
func (s *Stream) heard(v *View, c *raw) {
	if a := s.account(v, c); a != nil {
		a.expected++
	}
}

// echoed says that a packet that was entered is told as a call.
func (s *Stream) echoed(v *View, c *raw) {
	if a := s.account(v, c); a != nil && a.expected > 0 {
		a.expected--
	}
}

// called enters calls whose packets live on and are counted too. Those of
// connecting ends are left to the calls altogether, see echoes.
func (s *Stream) called(v *View, c *raw, n uint64) {
	if c.outcome == compiler.Refused || c.hook != model.Accept {
		return
	}
	if a := s.account(v, c); a != nil {
		a.expected += n
	}
}

// echoes reports whether what a counter of packets counts was told as calls:
// what a connecting end may not and does in audit, or may and logs. A connected
// socket makes one call and many packets.
func (s *Stream) echoes(k compiler.Telling) bool {
	return s.tallies != nil && k.Outcome != compiler.Refused && k.Hook != model.Accept
}

// account returns the account that a decision is in; nil if there is none.
func (s *Stream) account(v *View, c *raw) *account {
	l := s.ledgers[c.device]
	if l == nil || v == nil {
		return nil
	}
	k := compiler.Telling{Hook: c.hook, Rule: c.rule, Outcome: c.outcome}
	if c.outcome == compiler.Refused && c.end == compiler.EndTo {
		k.Errno = c.errno
	} else {
		name := c.name
		if name == "" {
			name, _ = v.name(c.device, c.identity)
		}
		k.Namespace = v.countedUnder(c.device, name)
	}
	a := l.counted[k]
	if a == nil && (k.Errno != "" || k.Namespace != "") {
		a = &account{}
		if k.Errno == "" {
			a.name = v.ruleName(k.Namespace, k.Hook, k.Rule)
		}
		l.counted[k] = a
	}
	return a
}

// Counted takes what a table has counted, and tells of what of it was not
// logged one by one. It reports whether there was any.
func (s *Stream) Counted(device string, f *compiler.Tellings, now time.Time) bool {
	l := s.ledgers[device]
	if l == nil || s.view == nil {
		return false
	}
	told := false
	for k, figure := range f.Counted {
		if k.Outcome == compiler.Allowed && !s.view.logs(k.Namespace, k.Hook, k.Rule) {
			continue
		}
		a := l.counted[k]
		if a == nil && (k.Namespace == "" || figure.Name == s.view.ruleName(k.Namespace, k.Hook, k.Rule)) {
			a = &account{name: strings.Clone(figure.Name)}
			l.counted[k] = a
		}
		if a == nil || a.name != figure.Name { // the table is that of another policy
			continue
		}
		n := a.missing(figure.Count, now)
		if n == 0 || s.echoes(k) {
			continue
		}
		told = true
		c := raw{time: now, device: device, outcome: k.Outcome, hook: k.Hook, rule: k.Rule, name: k.Namespace, errno: k.Errno}
		var oneOf []string
		if k.Namespace == "" {
			oneOf = l.accepted(k, f.Accepting)
		} else {
			oneOf = s.view.sources(device, k.Namespace)
		}
		if len(oneOf) > 0 {
			c.name = oneOf[0]
		}
		s.untold(&c, oneOf, events.Packets, n)
	}
	for k, a := range l.counted {
		if _, counts := f.Counted[k]; !counts {
			a.missing(0, now)
		}
	}
	l.accepting = f.Accepting
	return told
}

// accepted returns the namespaces whose accepting ends refused by a rule since
// that was read last.
func (l *ledger) accepted(k compiler.Telling, now map[compiler.Telling]uint64) []string {
	var names, all []string
	for a, n := range now {
		if a.Hook != k.Hook || a.Rule != k.Rule {
			continue
		}
		all = append(all, a.Namespace)
		if n > l.accepting[a] {
			names = append(names, a.Namespace)
		}
	}
	if len(names) == 0 {
		names = all
	}
	slices.Sort(names)
	return names
}

// BeginCalls takes what the syscall tier has counted when its reports begin to
// be read. Nil says that there is no such tier.
func (s *Stream) BeginCalls(list []syscalls.Tally) {
	if s.tallies = nil; list == nil {
		return
	}
	s.tallies = make(map[tally]*account, len(list))
	for _, t := range list {
		if k, ok := tallyOf(&t); ok {
			s.tallies[k] = newAccount("", t.Count)
		}
	}
}

func tallyOf(t *syscalls.Tally) (tally, bool) {
	if int(t.Hook) >= len(model.Hooks) || int(t.Outcome) >= len(outcomeOfCall) {
		return tally{}, false
	}
	return tally{t.Identity, t.Tag, model.Hooks[t.Hook], outcomeOfCall[t.Outcome]}, true
}

// heardCall enters a call that was reported as the nth of its kind, decided at a
// time. It reports whether the call is in a number that was told.
func (s *Stream) heardCall(k tally, n uint64, decided time.Time) (told bool) {
	if s.tallies == nil {
		s.tallies = make(map[tally]*account)
	}
	a := s.tallies[k]
	if a == nil {
		a = &account{}
		s.tallies[k] = a
	}
	switch {
	case n <= a.begun: // it was counted before the beginning
	case n <= a.last && decided.Before(a.read): // else the kernel counts anew
		return true
	default:
		a.expected++
	}
	return false
}

// Tallied takes what the syscall tier has counted, and tells of what of it was
// not reported one by one. It reports whether there was any.
func (s *Stream) Tallied(list []syscalls.Tally, now time.Time) bool {
	told := false
	if s.tallies == nil {
		s.tallies = make(map[tally]*account)
	}
	for i := range list {
		t := &list[i]
		k, ok := tallyOf(t)
		if !ok || s.view == nil {
			continue
		}
		a := s.tallies[k]
		if a == nil {
			a = &account{}
			s.tallies[k] = a
		}
		n := a.missing(t.Count, now)
		if n == 0 {
			continue
		}
		told = true
		for device := range s.view.devices {
			if _, ok := s.view.name(device, t.Identity); !ok {
				continue
			}
			if rule, there := s.view.ruleOfTag(device, t.Identity, k.hook, t.Tag); there {
				c := raw{time: now, device: device, outcome: k.outcome, hook: k.hook, rule: rule, identity: t.Identity}
				s.called(s.view, &c, n)
				s.untold(&c, nil, events.Syscalls, n)
			}
			break
		}
	}
	if len(s.tallies) > 2*len(list)+most { // those that the kernel has forgotten
		s.BeginCalls(list)
	}
	return told
}

// untold tells of a number of decisions. oneOf are the namespaces of which one
// or more decided, if it is not known which.
func (s *Stream) untold(c *raw, oneOf []string, tier events.Tier, n uint64) {
	e := s.event(s.view, c)
	d := e.Decided
	d.Count, d.Unreported, d.Tier = 0, n, tier
	if len(oneOf) > 1 {
		e.Namespace, d.OneOf = "", oneOf
	}
	s.publish(e)
}
