package controller

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
)

// Count is how often one rule, or one default, decided.
type Count struct {
	Device    string
	Namespace string // of namespaces that share their rules, the first by name
	Hook      string // bind, connect, accept
	Rule      string // its number in the hook's list, from 1, or "default"
	Allowed   bool
	// Calls says that system calls were counted, in which case no packet was
	// made, and not packets.
	Calls bool
	N     uint64
}

// Counts reads what the rules in some device namespaces have decided since
// they are in the kernel. Device namespaces that are not there are passed over.
func (h *Host) Counts(devices []DeviceState) ([]Count, error) {
	refused, err := h.refusedCalls()
	if err != nil {
		return nil, err
	}
	var counts []Count
	for _, d := range devices {
		if !d.Present {
			continue
		}
		dev, err := h.open(model.DeviceNamespace{Name: d.Name, Path: d.Path})
		if err != nil {
			return nil, err
		}
		table, err := dev.table()
		if err != nil {
			return nil, err
		}
		counts = append(counts, countsOf(d.Name, compiler.Describe(table), refused)...)
	}
	return counts, nil
}

// countsOf returns the counts of one device namespace, each rule once.
func countsOf(device string, described []compiler.Described, refused map[uint32][]CallsRefused) []Count {
	type rule struct {
		namespace, hook, rule string
		allowed, calls        bool
	}
	sums := make(map[rule]uint64)
	shared := make(map[string]bool)
	for _, d := range described {
		if !shared[d.Policy] {
			shared[d.Policy] = len(d.Counters) > 0
			for _, c := range d.Counters {
				sums[rule{d.Name, c.Hook, c.Number, c.Allowed, false}] += c.Packets
			}
		}
		for _, c := range refused[d.Identity] {
			sums[rule{d.Name, c.Hook, ruleName(c.Rule), false, true}] += c.Calls
		}
	}
	counts := make([]Count, 0, len(sums))
	for r, n := range sums {
		counts = append(counts, Count{device, r.namespace, r.hook, r.rule, r.allowed, r.calls, n})
	}
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Hook, b.Hook), cmp.Compare(a.Rule, b.Rule), cmp.Compare(fmt.Sprint(a.Calls), fmt.Sprint(b.Calls)))
	})
	return counts
}

// ruleName returns the number of a rule, or "default" for 0.
func ruleName(rule int) string {
	if rule == 0 {
		return "default"
	}
	return fmt.Sprint(rule)
}
