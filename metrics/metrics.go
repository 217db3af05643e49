// Package metrics has the figures of a running controller in the form of
// Prometheus. docs/operations.md lists them.
package metrics

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
)

// Source has what is read when somebody asks. Its methods are safe for
// concurrent use.
type Source interface {
	State(context.Context) (*controller.State, error)
	// Counts reads what the rules decided, in these device namespaces.
	Counts([]controller.DeviceState) ([]controller.DeviceCounts, error)
}

// Metrics counts events. Its methods are safe for concurrent use.
type Metrics struct {
	registry   *prometheus.Registry
	reconciles *prometheus.CounterVec
	duration   prometheus.Histogram
	member     prometheus.Histogram
	members    *prometheus.CounterVec
	loads      *prometheus.CounterVec
	drift      *prometheus.CounterVec
	tier       prometheus.Counter
	found      *prometheus.CounterVec
}

// seconds are the bounds of histograms, from 16 microseconds to 33 seconds.
var seconds = prometheus.ExponentialBuckets(16e-6, 2, 22)

// New returns the metrics of a controller of some version.
func New(src Source, version string) *Metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds})
	}
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		reconciles: vec("sockns_reconciles_total", "Comparisons of everything with the kernel, by result: unchanged, changed, failed.", "result"),
		duration:   histogram("sockns_reconcile_duration_seconds", "How long comparing everything and applying what differed took."),
		member:     histogram("sockns_member_update_duration_seconds", "From the notification of one cgroup to its committed elements."),
		members:    vec("sockns_member_changes_total", "Member cgroups that came and went, by change: joined, left.", "change"),
		loads:      vec("sockns_policy_loads_total", "Readings of the policy files, by result: loaded, broken.", "result"),
		drift:      vec("sockns_drift_repaired_total", "Repairs of what somebody else had changed in nftables.", "device_namespace"),
		tier: prometheus.NewCounter(prometheus.CounterOpts{Name: "sockns_syscall_tier_repaired_total",
			Help: "Repairs of the cgroup-BPF programs, which somebody had detached or replaced."}),
		found: vec("sockns_resync_found_total", "Differences that only the safety resync noticed. Each is a bug.", "device_namespace"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sockns_build_info", Help: "1, with the version that runs.",
		ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	m.registry.MustRegister(info, m.reconciles, m.duration, m.member, m.members, m.loads, m.drift, m.tier, m.found,
		&onDemand{src}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, result := range []string{"unchanged", "changed", "failed"} {
		m.reconciles.WithLabelValues(result)
	}
	for _, change := range []string{"joined", "left"} {
		m.members.WithLabelValues(change)
	}
	for _, result := range []string{"loaded", "broken"} {
		m.loads.WithLabelValues(result)
	}
	m.drift.WithLabelValues("host")
	m.found.WithLabelValues("host")
	return m
}

// Handler answers with all metrics. What can't be read is left out.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Registry: m.registry, MaxRequestsInFlight: 4, Timeout: time.Minute,
	})
}

// Observe counts an event.
func (m *Metrics) Observe(e events.Event) {
	switch e.Kind {
	case events.Reconciled:
		result := "unchanged"
		if e.Changed {
			result = "changed"
		}
		m.reconciles.WithLabelValues(result).Inc()
		m.duration.Observe(e.Took)
	case events.Failed:
		m.reconciles.WithLabelValues("failed").Inc()
	case events.MemberJoined:
		m.members.WithLabelValues("joined").Inc()
		m.member.Observe(e.Took)
	case events.MemberLeft:
		m.members.WithLabelValues("left").Inc()
		m.member.Observe(e.Took)
	case events.PolicyLoaded:
		m.loads.WithLabelValues("loaded").Inc()
	case events.PolicyBroken:
		m.loads.WithLabelValues("broken").Inc()
	case events.DriftRepaired:
		m.drift.WithLabelValues(e.Device).Inc()
	case events.TierRepaired:
		m.tier.Inc()
	case events.ResyncFound:
		m.found.WithLabelValues(e.Device).Inc()
	}
}
