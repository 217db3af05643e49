package flowset

import (
	"slices"

	"github.com/sockns/sockns/model"
)

// The labels of what a hook answers: labelAllow, the place of an errno in
// errnos and 1, or labelUnnamed.
const (
	labelAllow = 0
	// labelUnnamed is the denial of a bind on an own address whose rule names
	// no errno: EADDRINUSE where another namespace may bind the port, else
	// EACCES; see taken.
	labelUnnamed = -1
)

var errnos = [...]model.Errno{
	model.EACCES, model.EADDRINUSE, model.EADDRNOTAVAIL, model.ECONNREFUSED,
	model.EHOSTUNREACH, model.ENETUNREACH, model.EPERM, model.ETIMEDOUT,
}

func labelOf(e model.Errno) int {
	if e == "" {
		return labelUnnamed
	}
	return slices.Index(errnos[:], e) + 1
}

// clause says what the answer is in a box, unless a clause before it says so.
type clause struct {
	box   Box
	label int
	rule  int     // index in the list from 1; 0 for what is no rule
	by    Decider // set where it is no rule
}

// domain is where the functions of a hook are defined.
func domain(h model.Hook, u *universe) Box {
	switch h {
	case model.Bind:
		return Box{allProtocols, unknown.Union(bound).Minus(wildcards), allPorts, Set{numbers(0, 0)}, unknown}
	case model.Connect:
		return Box{allProtocols, allLocal.Minus(wildcards), allPorts, u.all(), allPeers}
	}
	return Box{allProtocols, bound.Minus(wildcards), allPorts, u.all(), allPeers}
}

// Decider is what decides a flow.
type Decider uint8

// The deciders.
const (
	Rule          Decider = iota
	Default               // no rule matched
	SameNamespace         // both sockets are in one socket namespace
	PickedPort            // a bind to port 0 on an own address, which needs no rule
	OtherAddress          // a bind to an address that is not the namespace's
	HiddenSocket          // accept is not asked: the kernel does not show the receiving socket of the protocol
)

// diagram returns the function of clauses, of which the first that has a point
// decides.
func (s *space) diagram(clauses []clause, label func(clause) int) *Diagram {
	last := len(clauses) - 1
	d := s.constant(label(clauses[last]))
	for i := last - 1; i >= 0; i-- {
		d = s.paint(d, &clauses[i].box, label(clauses[i]))
	}
	return d
}

// errnoOf is the inverse of labelOf; an allow has no errno.
func errnoOf(label int) model.Errno {
	if label <= labelAllow {
		return ""
	}
	return errnos[label-1]
}
