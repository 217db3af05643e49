package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/explain"
	"github.com/sockns/sockns/model"
)

// Why is what is remembered of refusals: the answer of `sockns why`.
type Why struct {
	Namespace string  `json:"socketNamespace"`
	PID       int     `json:"pid,omitempty"` // if it was asked about a process
	Refusals  []Cause `json:"refusals"`      // the last first
}

// Cause is a refusal, or what would have been one in audit, and the smallest
// rules that would allow it under the policy in force.
type Cause struct {
	Event events.Event         `json:"event"`
	Fixes []explain.Suggestion `json:"suggestions,omitempty"`
}

// ErrUnknown says that a question is about nobody whom the controller knows.
type ErrUnknown string

func (e ErrUnknown) Error() string { return string(e) }

// Why returns the last refusals of a socket namespace, an instance of a
// template, or the process of a number. The error is an [ErrUnknown] if there
// is none of that name. It is safe for concurrent use.
func (r *Reconciler) Why(ctx context.Context, subject string) (*Why, error) {
	var why *Why
	var wrong error // about the question, not about the controller
	_, err := ask(ctx, r, func() (struct{}, error) {
		why, wrong = r.why(subject)
		return struct{}{}, nil
	})
	if err != nil {
		return nil, err
	}
	return why, wrong
}

func (r *Reconciler) why(subject string) (*Why, error) {
	why := &Why{Namespace: subject, Refusals: []Cause{}}
	if pid, err := strconv.Atoi(subject); err == nil {
		why.PID = pid
		if why.Namespace, err = r.namespaceOfProcess(pid); err != nil {
			return nil, err
		}
	} else if r.good.Policy.Namespace(subject) == nil {
		return nil, ErrUnknown("the policy in force has no socket namespace " + subject)
	}
	policy := r.good.Policy
	for _, e := range slices.Backward(r.witness.recent.of(why.Namespace)) {
		d := e.Decided
		other := why.PID != 0 && d.Process != nil && d.Process.PID != uint32(why.PID)
		if d.Action != model.Deny || other {
			continue
		}
		c := Cause{Event: e}
		if e.Namespace != "" {
			enforced := enforcing(policy, e.Namespace)
			c.Fixes = explain.Suggest(enforced, question(&e))
		}
		why.Refusals = append(why.Refusals, c)
	}
	return why, nil
}

// namespaceOfProcess returns the socket namespace of what a process makes now.
// One that has ended is looked for among what is remembered.
func (r *Reconciler) namespaceOfProcess(pid int) (string, error) {
	at, err := locateProcess(pid, r.good.Policy.DeviceNamespaces, func(d model.DeviceNamespace) uint64 {
		if dev := r.host.devices[d.Name]; dev != nil {
			return dev.ns.Identity().Inode
		}
		return 0
	})
	if _, ended := errors.AsType[processGone](err); ended {
		if name, ok := r.witness.recent.process(uint32(pid)); ok {
			return name, nil
		}
		return "", ErrUnknown(fmt.Sprintf("there is no process %d, and none of that number was refused anything lately", pid))
	}
	if err != nil {
		return "", ErrUnknown(err.Error())
	}
	at.place(func(dir string, claimed func(device, namespace string)) {
		for device, m := range r.devices {
			if member, ok := m.members[dir]; ok {
				claimed(device, member.Namespace)
			}
		}
	})
	if at.Namespace == "" {
		return "", ErrUnknown(at.String() + ": it may do everything")
	}
	return at.Namespace, nil
}

// enforcing returns a policy in which a namespace is not in audit, so that it
// refuses what it tells of.
func enforcing(p *model.Policy, namespace string) *model.Policy {
	n := p.Namespace(namespace)
	if n == nil || n.Mode != model.Audit {
		return p
	}
	copied := *p
	copied.SocketNamespaces = slices.Clone(p.SocketNamespaces)
	copied.Namespace(namespace).Mode = model.Enforce
	return &copied
}

// question returns what a decision was about, in the words of the model.
func question(e *events.Event) model.Question {
	d := e.Decided
	us := model.End{Namespace: e.Namespace, Device: e.Device}
	them := model.End{}
	if d.Peer != "" { // known by identity: it is here
		them.Device = e.Device
		if unmanaged := (model.Peer{Kind: model.PeerUnmanaged}).String(); d.Peer != unmanaged {
			them.Namespace = d.Peer
		}
	}
	q := model.Question{Hook: model.Connect, Flow: model.Flow{Protocol: d.Protocol, From: us, To: them}}
	switch d.Hook {
	case model.Bind.String():
		q.Hook = model.Bind
	case model.Accept.String():
		q.Flow.From, q.Flow.To = them, us
	}
	from := d.Source
	if q.Hook != model.Bind && from.IsValid() {
		// The kernel has picked it, as far as is known.
		q.Flow.From.Picked, from = from.Addr(), netip.AddrPort{}
	}
	q.Flow.From.Address, q.Flow.To.Address = from, d.Destination
	return q
}
