package compiler

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sockns/sockns/model"
)

// LogGroup is the group of nfnetlink_log that the tables' log statements send
// to, in the network namespace of the table.
const LogGroup = 21358

// End says which end of a packet a list was asked for, and so whose decision
// a logged packet tells.
type End string

// The ends. At From and To a second packet, logged with [PeerPrefix], has the
// other end's identity as its mark.
const (
	EndOut  End = "out"  // the sender, in output; the mark is its identity
	EndFrom End = "from" // the sender, in input from lo; the mark is its identity
	// EndOf is the sender too, where its identity is lost: the mark is that of
	// the first namespace that has its policy.
	EndOf End = "of"
	EndTo End = "to" // the receiver, in input; the mark is the sender's identity
)

// Outcome is what became of a packet that a table logs.
type Outcome string

// The outcomes.
const (
	Refused Outcome = "refuse"
	Audited Outcome = "audit" // would have been refused
	Allowed Outcome = "allow" // by a rule that logs
)

// Prefix is what the prefix of a logged packet says.
type Prefix struct {
	Outcome Outcome
	// Namespace has its name where the packet lives on, so that its mark can't
	// tell: for all outcomes but Refused.
	Namespace string
	End       End
	Hook      model.Hook
	Rule      int         // from 1; 0: the default
	Errno     model.Errno // empty if allowed
}

// PeerPrefix is that of the second packet of a refusal in input, whose mark is
// the receiver's identity.
const PeerPrefix = "sockns peer"

const prefixBegin = "sockns "

// String returns the prefix as the kernel has it.
func (p Prefix) String() string {
	words := []string{prefixBegin + string(p.Outcome)}
	if p.Namespace != "" {
		words = append(words, p.Namespace)
	}
	words = append(words, string(p.End), p.Hook.String(), strconv.Itoa(p.Rule))
	if p.Errno != "" {
		words = append(words, string(p.Errno))
	}
	return strings.Join(words, " ")
}

// ParsePrefix is the inverse of [Prefix.String].
func ParsePrefix(text string) (Prefix, error) {
	bad := fmt.Errorf("%q is no prefix of sockns", text)
	rest, ok := strings.CutPrefix(text, prefixBegin)
	words := strings.Fields(rest)
	if !ok || len(words) < 4 {
		return Prefix{}, bad
	}
	p := Prefix{Outcome: Outcome(words[0])}
	words = words[1:]
	if p.Outcome != Refused {
		p.Namespace, words = words[0], words[1:]
	}
	if len(words) < 3 || len(words) > 4 {
		return Prefix{}, bad
	}
	p.End = End(words[0])
	known := false
	for _, h := range model.Hooks {
		if h.String() == words[1] {
			p.Hook, known = h, true
		}
	}
	var err error
	if p.Rule, err = strconv.Atoi(words[2]); err != nil || p.Rule < 0 || !known {
		return Prefix{}, bad
	}
	if len(words) == 4 {
		p.Errno = model.Errno(words[3])
	}
	return p, nil
}
