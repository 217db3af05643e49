package controller

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

// mostRefusals is how many kinds of refusals are remembered.
const mostRefusals = 4096

// Refusals is all that was refused, or would have been in audit, since the
// controller was started.
type Refusals struct {
	Since time.Time `json:"since"`
	// Refusals are by kind: Count and Unreported are sums, from Since to Time. The
	// port of a client is 0, as it tells nothing.
	Refusals []events.Event `json:"refusals"`
	// Forgotten counts decisions of the kinds that were not seen for the longest
	// time, where there were too many kinds.
	Forgotten uint64 `json:"forgotten"`
}

// refusals sums refusals by kind. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	kinds map[kind]*events.Event
	all   Refusals // without the list
}

// kind is what refusals that are summed have in common.
type kind struct {
	namespace, oneOf, peer, hook, rule string
	protocol                           model.Protocol
	source, dest                       netip.AddrPort
	mode                               model.Mode
	behind                             bool
}

func newRefusals() *refusals {
	return &refusals{kinds: make(map[kind]*events.Event), all: Refusals{Since: time.Now()}}
}

// keep adds a decision, if it refused.
func (r *refusals) keep(e events.Event) {
	d := *e.Decided
	if d.Action != model.Deny {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.Hook != model.Bind.String() && d.Source.Port() >= 1024 {
		d.Source = netip.AddrPortFrom(d.Source.Addr(), 0) // the client's
	}
	k := kind{e.Namespace, strings.Join(d.OneOf, " "), d.Peer, d.Hook, d.Text, d.Protocol, d.Source, d.Destination, d.Mode, d.Behind}
	if d.Since.IsZero() {
		d.Since = e.Time
	}
	if have := r.kinds[k]; have != nil {
		d.Count += have.Decided.Count
		d.Unreported += have.Decided.Unreported
		d.Since = have.Decided.Since
	} else if len(r.kinds) >= mostRefusals {
		r.forget()
	}
	e.Decided = &d
	e.Message = d.String()
	r.kinds[k] = &e
}

// forget drops the half that was not seen for the longest time.
func (r *refusals) forget() {
	oldest := slices.SortedFunc(maps.Keys(r.kinds), func(a, b kind) int { return r.kinds[a].Time.Compare(r.kinds[b].Time) })
	for _, k := range oldest[:len(oldest)/2] {
		r.all.Forgotten += r.kinds[k].Decided.Count + r.kinds[k].Decided.Unreported
		delete(r.kinds, k)
	}
}

// list returns all, by socket namespace and the time of the first.
func (r *refusals) list() *Refusals {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	all.Refusals = make([]events.Event, 0, len(r.kinds))
	for _, e := range r.kinds {
		all.Refusals = append(all.Refusals, *e)
	}
	slices.SortFunc(all.Refusals, func(a, b events.Event) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), a.Decided.Since.Compare(b.Decided.Since), cmp.Compare(a.Message, b.Message))
	})
	return &all
}

// Refusals returns what was refused since the controller was started. It is
// safe for concurrent use.
func (r *Reconciler) Refusals(ctx context.Context) (*Refusals, error) {
	return ask(ctx, r, func() (*Refusals, error) { return r.witness.refusals.list(), nil })
}
