package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
)

// onDemand reads the state and the kernel's counters when they are asked for.
type onDemand struct{ src Source }

// stateTimeout is how long the controller may be busy.
const stateTimeout = 10 * time.Second

var (
	members = prometheus.NewDesc("sockns_members", "Cgroups that the kernel knows as members.",
		[]string{"device_namespace", "socket_namespace"}, nil)
	missing = prometheus.NewDesc("sockns_members_missing", "Members of the policy that do not exist.",
		[]string{"device_namespace", "socket_namespace"}, nil)
	present = prometheus.NewDesc("sockns_device_namespace_present", "1 if the network namespace of a device namespace is there.",
		[]string{"device_namespace"}, nil)
	namespaces = prometheus.NewDesc("sockns_socket_namespaces", "Socket namespaces of the policy in force, templates once.", nil, nil)
	loaded     = prometheus.NewDesc("sockns_policy_loaded_timestamp_seconds", "When the policy in force was loaded.", nil, nil)
	broken     = prometheus.NewDesc("sockns_policy_broken", "1 while the policy files are broken and the last good policy is in force.", nil, nil)
	failing    = prometheus.NewDesc("sockns_reconcile_failing", "1 while the last attempt to reconcile failed.", nil, nil)
	shared     = prometheus.NewDesc("sockns_counters_shared", "1 for a socket namespace whose packets are counted under another with the same rules.",
		[]string{"device_namespace", "socket_namespace", "counted_under"}, nil)
)

// What the rules decided. The rule is its words, so that a series goes on when
// rules are put before it.
var (
	ruleLabels = []string{"device_namespace", "socket_namespace", "hook", "rule"}
	packets    = map[compiler.Outcome]*prometheus.Desc{
		compiler.Allowed: prometheus.NewDesc("sockns_allowed_packets_total", "Packets that begin something and that a rule allowed.", ruleLabels, nil),
		compiler.Refused: prometheus.NewDesc("sockns_refused_packets_total", "Packets that a rule refused.", ruleLabels, nil),
		compiler.Audited: prometheus.NewDesc("sockns_audited_packets_total", "Packets that a rule in audit would have refused.", ruleLabels, nil),
	}
	calls = map[compiler.Outcome]*prometheus.Desc{
		compiler.Refused: prometheus.NewDesc("sockns_refused_calls_total", "System calls that a rule refused, which made no packet.", ruleLabels, nil),
		compiler.Audited: prometheus.NewDesc("sockns_audited_calls_total", "System calls that a rule in audit would have refused.", ruleLabels, nil),
	}
)

// Describe implements prometheus.Collector.
func (c *onDemand) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{members, missing, present, namespaces, loaded, broken, failing, shared} {
		ch <- d
	}
	for _, counters := range []map[compiler.Outcome]*prometheus.Desc{packets, calls} {
		for _, d := range counters {
			ch <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c *onDemand) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	state, err := c.src.State(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(loaded, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(namespaces, float64(state.Policy.Namespaces))
	gauge(loaded, float64(state.Policy.Loaded.UnixMicro())/1e6)
	gauge(broken, number(state.Policy.Broken != nil))
	gauge(failing, number(state.Failing != nil))
	for _, d := range state.Devices {
		gauge(present, number(d.Present), d.Name)
		for name, n := range d.Members {
			gauge(members, float64(n), d.Name, name)
		}
		absent := make(map[string]int)
		for _, m := range d.Missing {
			absent[m.Namespace]++
		}
		for name, n := range absent {
			gauge(missing, float64(n), d.Name, name)
		}
	}
	counts, err := c.src.Counts(state.Devices)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(packets[compiler.Refused], err)
		return
	}
	for _, d := range counts {
		for name, n := range d.Namespaces {
			collectCounts(ch, d.Device, name, n)
		}
	}
}

// collectCounts tells of one socket namespace, or instance of a template,
// whose packets are counted under the template.
func collectCounts(ch chan<- prometheus.Metric, device, name string, n controller.Counts) {
	if n.CountedUnder != "" && !strings.Contains(name, "/") {
		ch <- prometheus.MustNewConstMetric(shared, prometheus.GaugeValue, 1, device, name, n.CountedUnder)
	}
	type series struct {
		desc       *prometheus.Desc
		hook, rule string
	}
	sums := make(map[series]uint64) // a rule that stands there twice is one
	for _, r := range n.Rules {
		if n.CountedUnder == "" {
			sums[series{packets[r.Outcome], r.Hook, r.Name}] += r.Packets
		}
		if d := calls[r.Outcome]; d != nil {
			of := series{d, r.Hook, r.Name}
			sums[of] = max(sums[of], r.Calls)
		}
	}
	for of, sum := range sums {
		ch <- prometheus.MustNewConstMetric(of.desc, prometheus.CounterValue, float64(sum), device, name, of.hook, of.rule)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
