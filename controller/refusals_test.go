package controller

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

func refusal(at int, source, dest string) events.Event {
	return events.Event{Time: time.Unix(int64(at), 0), Kind: events.Decision, Namespace: "web", Decided: &events.Decided{
		Action: model.Deny, Mode: model.Enforce, Hook: "connect", Protocol: model.TCP, Text: "default", Count: 1,
		Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(dest),
	}}
}

func TestRefusalsAreSummedByKind(t *testing.T) {
	r := newRefusals()
	for i, port := range []string{"40000", "40001", "40002"} {
		e := refusal(i, "10.0.0.1:"+port, "10.0.0.2:80")
		e.Decided.Unreported = 5
		r.keep(e)
	}
	r.keep(refusal(9, "10.0.0.1:40003", "10.0.0.2:81"))
	allowed := refusal(10, "10.0.0.1:40003", "10.0.0.2:82")
	allowed.Decided.Action = model.Allow
	r.keep(allowed)
	more := refusal(11, "10.0.0.1:40003", "10.0.0.2:80")
	more.Decided.Count, more.Decided.Unreported = 0, 100
	r.keep(more)
	got := r.list()
	if len(got.Refusals) != 2 || got.Forgotten != 0 {
		t.Fatalf("%+v", got)
	}
	first := got.Refusals[0]
	if d := first.Decided; d.Count != 3 || d.Unreported != 115 || !d.Since.Equal(time.Unix(0, 0)) || !first.Time.Equal(time.Unix(11, 0)) || d.Source.Port() != 0 {
		t.Errorf("%+v of %+v", d, first)
	}
}

// TestRefusalsAreBounded: what is forgotten is what was not seen for the
// longest time, and is counted.
func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusals()
	const kinds = 3 * mostRefusals
	for i := range kinds {
		r.keep(refusal(i, "10.0.0.1:40000", netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(1+i)).String()))
		r.keep(refusal(i, "10.0.0.1:40000", "10.0.0.3:80"))
	}
	got := r.list()
	if len(got.Refusals) > mostRefusals {
		t.Errorf("%d kinds", len(got.Refusals))
	}
	total, always := got.Forgotten, uint64(0)
	for _, e := range got.Refusals {
		total += e.Decided.Count
		if e.Decided.Destination.Addr().String() == "10.0.0.3" {
			always = e.Decided.Count
		}
	}
	if total != 2*kinds || always != kinds {
		t.Errorf("%d in all, %d of what went on", total, always)
	}
}
