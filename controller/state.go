package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/source"
)

// State is what a running controller knows of itself at a moment.
type State struct {
	PID     int         `json:"pid"`
	Started time.Time   `json:"started"`
	Policy  PolicyState `json:"policy"`
	// Devices are the device namespaces of the policy in force, in its order.
	Devices []DeviceState `json:"deviceNamespaces"`
	// Syscalls says whether bind(2) and connect(2) are answered by the kernel
	// itself, and if not, why.
	Syscalls SyscallState `json:"syscalls"`
	// Reconciled is when everything was last found or made equal, and
	// Reconciles how often it was.
	Reconciled time.Time `json:"reconciled"`
	Reconciles uint64    `json:"reconciles"`
	// Failing is set while reconciling fails and is tried again.
	Failing *Failing `json:"failing,omitempty"`
	// Drift counts repairs of what somebody else had changed; LastDrift is the
	// last of them.
	Drift     uint64        `json:"driftRepaired"`
	LastDrift *events.Event `json:"lastDrift,omitempty"`
	// ResyncFound counts what only the safety resync noticed: bugs.
	ResyncFound uint64 `json:"resyncFound"`
}

// PolicyState says which policy is in force, and what is wrong with the files
// if they hold another.
type PolicyState struct {
	Paths      []string  `json:"paths"`
	Files      []string  `json:"files"`  // of the policy in force
	Loaded     time.Time `json:"loaded"` // when it was
	Namespaces int       `json:"socketNamespaces"`
	Broken     *Broken   `json:"broken,omitempty"`
}

// Broken is what is wrong with the files since the policy in force was loaded.
type Broken struct {
	Since    time.Time        `json:"since"`
	Error    string           `json:"error,omitempty"`
	Problems []events.Problem `json:"problems,omitempty"`
}

// String returns what is wrong in one line: the first of several errors.
func (b *Broken) String() string {
	if len(b.Problems) == 0 {
		return b.Error
	}
	first := max(0, slices.IndexFunc(b.Problems, func(p events.Problem) bool { return p.Severity == fmt.Sprint(model.Error) }))
	if n := len(b.Problems) - 1; n > 0 {
		return fmt.Sprintf("%s (and %d more)", b.Problems[first], n)
	}
	return b.Problems[first].String()
}

// Failing is an error that is not overcome yet.
type Failing struct {
	Since time.Time `json:"since"`
	Error string    `json:"error"`
}

// DeviceState is a device namespace as the controller sees it.
type DeviceState struct {
	Name    string         `json:"name"`
	Path    string         `json:"path,omitempty"`
	Present bool           `json:"present"`
	Members map[string]int `json:"members"` // cgroups that the kernel knows, by socket namespace
	Missing []Missing      `json:"missing,omitempty"`
}

// Missing is a member that does not exist.
type Missing struct {
	Namespace string `json:"socketNamespace"`
	Member    string `json:"member"`
}

// SyscallState is the state of the syscall tier.
type SyscallState struct {
	Enforced bool   `json:"enforced"`
	Variant  string `json:"variant,omitempty"`
	Why      string `json:"why,omitempty"`
}

// ErrEnded says that the controller does not run any more.
var ErrEnded = errors.New("the controller has ended")

// State asks for the state. It waits for what the controller does at the
// moment; the error is that of ctx, or ErrEnded. It is safe for concurrent use.
func (r *Reconciler) State(ctx context.Context) (*State, error) {
	return ask(ctx, r, func() (*State, error) { return r.state(), nil })
}

// Devices asks for the device namespaces of the policy in force, without their
// members: a question that takes next to nothing to answer, as State's does not
// where namespaces are many. It waits and fails as State does.
func (r *Reconciler) Devices(ctx context.Context) ([]DeviceState, error) {
	return ask(ctx, r, func() ([]DeviceState, error) {
		var list []DeviceState
		for _, d := range r.good.Policy.DeviceNamespaces {
			_, present := r.present[d.Name]
			list = append(list, DeviceState{Name: d.Name, Path: d.Path, Present: present})
		}
		return list, nil
	})
}

// Reload asks to read the policy files again, as when they change, and returns
// what is wrong with them, nil if nothing is. It is safe for concurrent use.
func (r *Reconciler) Reload(ctx context.Context) (*Broken, error) {
	var broken *Broken
	_, err := ask(ctx, r, func() (struct{}, error) {
		err := r.reload("asked to reload")
		broken = r.record.broken
		return struct{}{}, err
	})
	if broken != nil {
		return broken, nil
	}
	return nil, err
}

// ask has the goroutine of Run call f, and returns what it returned. An error
// of f counts as a failure to reconcile.
func ask[T any](ctx context.Context, r *Reconciler, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	call := func() error {
		v, err := f()
		answers <- answer{v, err}
		return err
	}
	var none T
	select {
	case r.asks <- call:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-r.ended:
		return none, ErrEnded
	}
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// record is what the reconciler remembers for its state.
type record struct {
	started     time.Time
	loaded      time.Time
	broken      *Broken
	reconciled  time.Time
	reconciles  uint64
	failing     *Failing
	drift       uint64
	lastDrift   *events.Event
	resyncFound uint64
	waiting     *Loaded // a policy that could not be enforced yet
}

// note remembers an event.
func (c *record) note(e events.Event) {
	switch e.Kind {
	case events.PolicyLoaded:
		c.loaded, c.broken = e.Time, nil
	case events.PolicyBroken:
		since := e.Time
		if c.broken != nil {
			since = c.broken.Since
		}
		c.broken = &Broken{Since: since, Error: e.Error, Problems: e.Problems}
	case events.Reconciled:
		c.reconciled, c.failing = e.Time, nil
		c.reconciles++
	case events.Failed:
		since := e.Time
		if c.failing != nil {
			since = c.failing.Since
		}
		c.failing = &Failing{Since: since, Error: e.Error}
	case events.DriftRepaired, events.TierRepaired:
		c.drift++
		c.lastDrift = &e
	case events.ResyncFound:
		c.resyncFound++
	}
}

func (r *Reconciler) state() *State {
	c := &r.record
	s := &State{
		PID: os.Getpid(), Started: c.started,
		Policy:     PolicyState{Paths: absolute(r.paths), Loaded: c.loaded, Namespaces: len(r.good.Policy.SocketNamespaces), Broken: c.broken},
		Syscalls:   SyscallState{Enforced: r.calls != nil},
		Reconciled: c.reconciled, Reconciles: c.reconciles, Failing: c.failing,
		Drift: c.drift, LastDrift: c.lastDrift, ResyncFound: c.resyncFound,
	}
	for _, f := range r.good.Files {
		s.Policy.Files = append(s.Policy.Files, f.Name)
	}
	if support := r.host.support; support != nil {
		s.Syscalls.Variant, s.Syscalls.Why = string(support.Variant), support.Why
	}
	for _, d := range r.good.Policy.DeviceNamespaces {
		s.Devices = append(s.Devices, r.deviceState(d))
	}
	return s
}

// absolute returns paths for whoever is in another directory.
func absolute(paths []string) []string {
	out := slices.Clone(paths)
	for i, p := range out {
		if abs, err := filepath.Abs(p); err == nil && p != source.Stdin {
			out[i] = abs
		}
	}
	return out
}

func (r *Reconciler) deviceState(d model.DeviceNamespace) DeviceState {
	_, present := r.present[d.Name]
	s := DeviceState{Name: d.Name, Path: d.Path, Present: present, Members: make(map[string]int)}
	units := make(map[[2]string]bool) // socket namespace and unit, of those that are there
	m := r.devices[d.Name]
	if m != nil {
		for path, member := range m.members {
			s.Members[member.Namespace]++
			units[[2]string{member.Namespace, cgroup.UnitOf(path[strings.LastIndexByte(path, '/')+1:])}] = true
		}
	}
	for _, n := range r.good.Policy.SocketNamespaces {
		if n.Device != d.Name {
			continue
		}
		for _, member := range n.Members {
			there := units[[2]string{n.Name, member.Unit}]
			if member.Unit == "" && m != nil {
				_, there = m.members[member.Cgroup]
			}
			if !there {
				s.Missing = append(s.Missing, Missing{n.Name, member.String()})
			}
		}
	}
	return s
}
