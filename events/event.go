// Package events has what the controller tells of its work: plain values, a
// [Hub] that hands them to whoever listens, and their form as lines of a log.
package events

import (
	"fmt"
	"strings"
	"time"

	"github.com/sockns/sockns/compiler"
)

// Kind says what an event is about.
type Kind string

// The kinds.
const (
	// Started: the policy is in force for the first time since the controller
	// was started. Stopping: it ends, and what it enforced stays.
	Started  Kind = "started"
	Stopping Kind = "stopping"
	// Reconciled: everything was compared, and what differed was applied; Took
	// says how long that lasted. Failed: it could not be (Error), and is tried
	// again.
	Reconciled Kind = "reconciled"
	Failed     Kind = "failed"
	// Changed: what a device namespace enforces changed (Steps), because of the
	// policy or of members.
	Changed Kind = "changed"
	// DriftRepaired: somebody else had changed what sockns made (By), and Steps
	// brought it back.
	DriftRepaired Kind = "drift-repaired"
	// TierRepaired: programs of the syscall tier were detached or replaced.
	TierRepaired Kind = "tier-repaired"
	// ResyncFound: the safety resync met a difference that no notification had
	// announced. It is a bug of sockns or of the kernel.
	ResyncFound Kind = "resync-found"
	// PolicyLoaded: the files were read and hold no error. PolicyBroken: they
	// hold errors (Problems) or can't be read (Error), and the last good policy
	// stays.
	PolicyLoaded Kind = "policy-loaded"
	PolicyBroken Kind = "policy-broken"
	// MemberJoined and MemberLeft: a cgroup that a socket namespace claims came
	// or went, and the kernel knows.
	MemberJoined Kind = "member-joined"
	MemberLeft   Kind = "member-left"
	// DeviceAppeared and DeviceWent: the network namespace that a device
	// namespace names came, or went.
	DeviceAppeared Kind = "device-appeared"
	DeviceWent     Kind = "device-went"
	// ConfirmWaiting: an edit goes back unless it is confirmed. Confirmed: that
	// wait is over. Restored: it was not confirmed, and the former policy is
	// enforced again.
	ConfirmWaiting Kind = "confirm-waiting"
	Confirmed      Kind = "confirmed"
	Restored       Kind = "restored"
	// Degraded: something works less well than it should (Error).
	Degraded Kind = "degraded"
	// Decision: a connect, accept or bind was refused, or allowed by a rule
	// that logs (Decided).
	Decision Kind = "decision"
	// Lost: the listener was too slow, and Lost events are missing here.
	Lost Kind = "lost"
)

// Kinds lists all kinds.
var Kinds = []Kind{
	Started, Stopping, Reconciled, Failed, Changed, DriftRepaired, TierRepaired, ResyncFound,
	PolicyLoaded, PolicyBroken, MemberJoined, MemberLeft, DeviceAppeared, DeviceWent,
	ConfirmWaiting, Confirmed, Restored, Degraded, Decision, Lost,
}

// Event is one thing that happened. Which of the optional fields are set
// depends on the kind.
type Event struct {
	Sequence  uint64    `json:"sequence"` // in order of publishing, from 1; 0 for Lost
	Time      time.Time `json:"time"`
	Kind      Kind      `json:"kind"`
	Device    string    `json:"deviceNamespace,omitempty"`
	Namespace string    `json:"socketNamespace,omitempty"`
	// Message says it in one line, without kind, device and socket namespace.
	Message string `json:"message"`
	// Error is the message of an error.
	Error string `json:"error,omitempty"`
	// Took is a duration in seconds.
	Took float64 `json:"tookSeconds,omitempty"`
	// Changed says for Reconciled that something differed.
	Changed bool `json:"changed,omitempty"`
	// Cgroup is a path below the mount of cgroup v2.
	Cgroup string `json:"cgroup,omitempty"`
	// Steps say what changed, in the policy's words; MoreSteps counts those
	// that are left out.
	Steps     []compiler.Step `json:"steps,omitempty"`
	MoreSteps int             `json:"moreSteps,omitempty"`
	By        []Actor         `json:"by,omitempty"`
	Problems  []Problem       `json:"problems,omitempty"`
	Lost      uint64          `json:"lost,omitempty"`
	Decided   *Decided        `json:"decided,omitempty"`
}

// Actor is a process that changed what sockns made.
type Actor struct {
	PID     uint32 `json:"pid"`
	Process string `json:"process"` // its name, up to 15 bytes (comm)
	// Cgroup and Unit tell where it ran; empty if it had ended before that
	// could be read.
	Cgroup string `json:"cgroup,omitempty"`
	Unit   string `json:"unit,omitempty"`
	// Did are its changes: "delete table", "add 9 rules to chain web".
	Did []string `json:"did,omitempty"`
}

// String returns "pid 4242 (nft) of ssh.service: delete table".
func (a Actor) String() string {
	s := fmt.Sprintf("pid %d (%s)", a.PID, a.Process)
	if a.Unit != "" {
		s += " of " + a.Unit
	} else if a.Cgroup != "" {
		s += " of cgroup " + a.Cgroup
	}
	if len(a.Did) > 0 {
		s += ": " + strings.Join(a.Did, ", ")
	}
	return s
}

// Problem is what is wrong at a place of a policy file.
type Problem struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Severity string `json:"severity"` // error or warning
	Message  string `json:"message"`
}

// String returns "file:line:column: severity: message".
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Severity, p.Message)
}

// mostSteps is how many steps an event holds.
const mostSteps = 100

// SetSteps sets the steps, as many as an event holds.
func (e *Event) SetSteps(steps []compiler.Step) {
	kept := min(len(steps), mostSteps)
	e.Steps, e.MoreSteps = steps[:kept:kept], len(steps)-kept
}

// String returns the event as a line for people, without its time; steps,
// actors and problems follow on lines of their own.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(string(e.Kind))
	if e.Device != "" {
		b.WriteString(" " + e.Device)
	}
	if e.Namespace != "" {
		b.WriteString(" " + e.Namespace)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Error != "" {
		b.WriteString(": " + e.Error)
	}
	if e.Lost > 0 {
		fmt.Fprintf(&b, ": %d events are missing here", e.Lost)
	}
	for _, a := range e.By {
		b.WriteString("\n    by " + a.String())
	}
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "\n    %s %s", s.Op, s)
	}
	if e.MoreSteps > 0 {
		fmt.Fprintf(&b, "\n    and %d more", e.MoreSteps)
	}
	for _, p := range e.Problems {
		b.WriteString("\n    " + p.String())
	}
	return b.String()
}
