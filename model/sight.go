package model

import "fmt"

// Refusal is a refused flow or bind, with the circumstances on which it
// depends what an application sees of it.
type Refusal struct {
	Hook     Hook // that refused
	Error    Errno
	Protocol Protocol
	IPv6     bool
	// Loopback says that both sockets are in one device namespace, so that
	// the packets go through lo.
	Loopback bool
	// Managed says that the connecting application is in a socket namespace
	// of the same device namespace, so that its calls can be answered.
	Managed bool
	Log     bool // the rule logs, which takes a packet
}

// Sight is what an application sees of a refusal.
type Sight struct {
	Call  string `json:"call"`            // as in "connect(2)"
	Errno Errno  `json:"errno,omitempty"` // empty: Call succeeds, or does not return
	When  When   `json:"when"`
}

// When says when an application sees an error.
type When string

// The moments of a [Sight].
const (
	AtOnce    When = "at once"
	AfterSYN  When = "after 1 s" // when the kernel sends its SYN again
	OnReceive When = "on receive, if it is connected or asked for errors (IP_RECVERR)"
	OnAsking  When = "on receive, if it asked for errors (IP_RECVERR)"
	Silence   When = "never: silence"
	Inert     When = "never: the socket is inert, nothing reaches it and nothing leaves it"
	Unknown   When = "not measured"
)

// String returns the sight in a few words.
func (s Sight) String() string {
	switch {
	case s.Errno != "" && s.When == AtOnce:
		return fmt.Sprintf("%s fails with %s at once", s.Call, s.Errno)
	case s.Errno != "":
		return fmt.Sprintf("%s %s", s.Errno, s.When)
	case s.When == Inert:
		return fmt.Sprintf("%s succeeds; the socket is inert: nothing reaches it and nothing leaves it", s.Call)
	case s.When == Silence:
		return "silence: " + s.Call + " gets no answer"
	}
	return string(s.When)
}

// Syscalls returns what the connecting (or binding) application sees where
// the kernel has the syscall tier.
func (r Refusal) Syscalls() Sight {
	switch {
	case r.Hook == Bind:
		return Sight{r.call(), r.Error, AtOnce}
	case r.Hook == Connect && r.Protocol == ICMP && !r.Log:
		// Ping sockets have no sendmsg hook: what they send without connect(2)
		// is the packets'.
		return Sight{"connect(2)", r.Error, AtOnce}
	case r.Log, r.Hook == Accept && (!r.Managed || r.Error == ETIMEDOUT):
		return r.Packets() // which the tier leaves it to
	}
	return Sight{r.call(), r.Error, AtOnce}
}

// Packets returns what the connecting (or binding) application sees where
// packets alone enforce. Measured; docs/errors.md has the table.
func (r Refusal) Packets() Sight {
	call := r.call()
	switch {
	case r.Hook == Bind:
		return Sight{call, "", Inert}
	case r.Protocol == ICMP && !r.IPv6:
		return Sight{call, EPERM, AtOnce}
	case r.Protocol == ICMP: // ping_v6_sendmsg forgets the error
		switch r.Error {
		case ECONNREFUSED:
			return Sight{call, ECONNREFUSED, OnReceive}
		case EACCES, EPERM:
			return Sight{call, EACCES, OnReceive}
		}
		return Sight{call, "", Silence}
	case r.Protocol != TCP && !r.Loopback && r.Hook == Connect:
		if r.Protocol == SCTP {
			return Sight{call, "", Unknown}
		}
		return Sight{call, EPERM, AtOnce} // refused where it leaves
	case r.Error == ETIMEDOUT:
		return Sight{call, "", Silence}
	case r.Protocol == SCTP:
		return Sight{call, "", Unknown}
	}
	s := Sight{call, r.Error, AtOnce}
	if r.Error == EACCES || r.Error == EPERM { // "administratively prohibited"
		s.Errno = EHOSTUNREACH
		if r.IPv6 {
			s.Errno = EACCES
		}
	}
	switch {
	case r.Protocol != TCP && (r.Error == EHOSTUNREACH || r.Error == ENETUNREACH):
		s.When = OnAsking
	case r.Protocol != TCP:
		s.When = OnReceive
	case r.Error != ECONNREFUSED && r.IPv6: // ECONNREFUSED is a reset
		s.When = AfterSYN
	}
	return s
}

// call returns the system call that an error comes from.
func (r Refusal) call() string {
	switch {
	case r.Hook == Bind:
		return "bind(2)"
	case r.Protocol == TCP || r.Protocol == SCTP:
		return "connect(2)"
	}
	return "sendto(2)"
}
