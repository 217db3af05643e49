package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	allowed    = prometheus.NewDesc("sockns_allowed_packets_total", "Packets that begin something and that a rule allowed, since its rules are in the kernel.",
		[]string{"device_namespace", "socket_namespace", "hook", "rule"}, nil)
	refused = prometheus.NewDesc("sockns_refused_packets_total", "Packets that a rule refused, since its rules are in the kernel.",
		[]string{"device_namespace", "socket_namespace", "hook", "rule"}, nil)
	refusedCalls = prometheus.NewDesc("sockns_refused_calls_total", "System calls that a rule refused, which made no packet.",
		[]string{"device_namespace", "socket_namespace", "hook", "rule"}, nil)
)

// Describe implements prometheus.Collector.
func (c *onDemand) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{members, missing, present, namespaces, loaded, broken, failing, allowed, refused, refusedCalls} {
		ch <- d
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
		ch <- prometheus.NewInvalidMetric(refused, err)
		return
	}
	for _, n := range counts {
		ch <- prometheus.MustNewConstMetric(descOf(n), prometheus.CounterValue, float64(n.N), n.Device, n.Namespace, n.Hook, n.Rule)
	}
}

func descOf(c controller.Count) *prometheus.Desc {
	switch {
	case c.Allowed:
		return allowed
	case c.Calls:
		return refusedCalls
	}
	return refused
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
