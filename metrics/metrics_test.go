package metrics

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
)

type fake struct {
	state  controller.State
	counts []controller.DeviceCounts
	err    error
}

func (f *fake) State(context.Context) (*controller.State, error) { return &f.state, nil }

func (f *fake) Counts([]controller.DeviceState) ([]controller.DeviceCounts, error) {
	return f.counts, f.err
}

func full() *fake {
	return &fake{
		state: controller.State{
			Policy: controller.PolicyState{Namespaces: 2, Loaded: time.Unix(1700000000, 500e6), Broken: &controller.Broken{}},
			Devices: []controller.DeviceState{
				{Name: "host", Present: true, Members: map[string]int{"web": 2}, Missing: []controller.Missing{{Namespace: "db", Member: "unit db.service"}}},
				{Name: "blue"},
			},
		},
		counts: []controller.DeviceCounts{{Device: "host", Namespaces: map[string]controller.Counts{
			"web": {Rules: []controller.RuleCount{
				{Hook: "connect", Number: "1", Name: "may connect db", Outcome: compiler.Allowed, Packets: 7},
				{Hook: "connect", Number: "2", Name: "may connect db", Outcome: compiler.Allowed},
				{Hook: "connect", Number: "3", Name: "may not connect any udp, in audit", Outcome: compiler.Audited, Packets: 4, Calls: 2},
				{Hook: "connect", Number: "default", Name: "default", Outcome: compiler.Refused, Packets: 3, Calls: 5},
			}},
			"api": {CountedUnder: "web", Rules: []controller.RuleCount{
				{Hook: "connect", Number: "default", Name: "default", Outcome: compiler.Refused, Calls: 1},
			}},
			"user/1000": {CountedUnder: "user"},
		}}},
	}
}

// Names and helps follow the rules of Prometheus.
func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(New(full(), "v1").registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "sockns_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetrics(t *testing.T) {
	m := New(full(), "v1")
	for _, e := range []events.Event{
		{Kind: events.Reconciled, Changed: true, Took: 0.25},
		{Kind: events.Reconciled, Took: 0.001},
		{Kind: events.Failed},
		{Kind: events.MemberJoined, Took: 0.0001},
		{Kind: events.MemberLeft, Took: 0.0001},
		{Kind: events.PolicyLoaded},
		{Kind: events.PolicyBroken},
		{Kind: events.DriftRepaired, Device: "host"},
		{Kind: events.TierRepaired},
		{Kind: events.ResyncFound, Device: "blue"},
	} {
		m.Observe(e)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	lines := make(map[string]bool)
	for line := range strings.Lines(w.Body.String()) {
		lines[strings.TrimSpace(line)] = true
	}
	for _, want := range []string{
		`sockns_build_info{version="v1"} 1`,
		`sockns_reconciles_total{result="changed"} 1`,
		`sockns_reconciles_total{result="unchanged"} 1`,
		`sockns_reconciles_total{result="failed"} 1`,
		`sockns_reconcile_duration_seconds_count 2`,
		`sockns_reconcile_duration_seconds_sum 0.251`,
		`sockns_member_update_duration_seconds_count 2`,
		`sockns_member_changes_total{change="joined"} 1`,
		`sockns_policy_loads_total{result="broken"} 1`,
		`sockns_drift_repaired_total{device_namespace="host"} 1`,
		`sockns_syscall_tier_repaired_total 1`,
		`sockns_resync_found_total{device_namespace="host"} 0`,
		`sockns_resync_found_total{device_namespace="blue"} 1`,
		`sockns_members{device_namespace="host",socket_namespace="web"} 2`,
		`sockns_members_missing{device_namespace="host",socket_namespace="db"} 1`,
		`sockns_device_namespace_present{device_namespace="blue"} 0`,
		`sockns_policy_loaded_timestamp_seconds 1.7000000005e+09`,
		`sockns_policy_broken 1`,
		`sockns_reconcile_failing 0`,
		`sockns_allowed_packets_total{device_namespace="host",hook="connect",rule="may connect db",socket_namespace="web"} 7`,
		`sockns_audited_packets_total{device_namespace="host",hook="connect",rule="may not connect any udp, in audit",socket_namespace="web"} 4`,
		`sockns_audited_calls_total{device_namespace="host",hook="connect",rule="may not connect any udp, in audit",socket_namespace="web"} 2`,
		`sockns_refused_calls_total{device_namespace="host",hook="connect",rule="default",socket_namespace="api"} 1`,
		`sockns_counters_shared{counted_under="web",device_namespace="host",socket_namespace="api"} 1`,
		`sockns_refused_packets_total{device_namespace="host",hook="connect",rule="default",socket_namespace="web"} 3`,
		`sockns_refused_calls_total{device_namespace="host",hook="connect",rule="default",socket_namespace="web"} 5`,
	} {
		if !lines[want] {
			t.Errorf("missing: %s", want)
		}
	}
	for _, absent := range []string{`sockns_refused_packets_total{device_namespace="host",hook="connect",rule="default",socket_namespace="api"}`, "user/1000"} {
		if strings.Contains(w.Body.String(), absent) {
			t.Errorf("told although it is counted elsewhere: %s", absent)
		}
	}
	if t.Failed() {
		t.Log(w.Body)
	}
}

// What can't be read does not hide the rest.
func TestUnreadable(t *testing.T) {
	f := full()
	f.err = errors.New("EPERM")
	w := httptest.NewRecorder()
	New(f, "v1").Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if text := w.Body.String(); w.Code != 200 || !strings.Contains(text, "sockns_policy_broken 1") || strings.Contains(text, "sockns_refused") {
		t.Errorf("%d\n%s", w.Code, text)
	}
}
