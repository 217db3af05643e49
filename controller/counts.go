package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// Counts is what the rules of one socket namespace, or instance of a template,
// have decided. The kernel counts: a new controller goes on where the last one
// was, edits of the policy keep the counts of the rules that they leave alone,
// and a reboot or `sockns delete` ends them.
type Counts struct {
	// CountedUnder is the template of an instance, or another namespace with
	// the same rules, whose packets counts have those of this one in them. It is
	// empty for a namespace that is counted alone.
	CountedUnder string `json:"countedUnder,omitempty"`
	// AuditSince is since when the counts say what enforcing would have refused;
	// zero if nothing is in audit.
	AuditSince time.Time   `json:"auditSince,omitzero"`
	Rules      []RuleCount `json:"rules,omitempty"`
}

// RuleCount is how often one rule, or one default, decided.
type RuleCount struct {
	Hook    string           `json:"hook"`    // bind, connect, accept
	Number  string           `json:"number"`  // in the hook's list, from 1, or "default"
	Name    string           `json:"name"`    // "may connect db tcp/5432" or "default": the same wherever it stands
	Text    string           `json:"text"`    // "connect 1: may connect db tcp/5432"
	Outcome compiler.Outcome `json:"outcome"` // allow, refuse, or audit: would have been refused
	// Packets are those that begin something. Calls are system calls; one that
	// is refused makes no packet.
	Packets uint64 `json:"packets"`
	Calls   uint64 `json:"calls"`
}

// DeviceCounts is the counts of one device namespace by socket namespace.
type DeviceCounts struct {
	Device     string
	Namespaces map[string]Counts
}

// Counts reads what the rules in some device namespaces have decided. Device
// namespaces that are not there are passed over.
func (h *Host) Counts(devices []DeviceState) ([]DeviceCounts, error) {
	calls, err := h.tallies()
	if err != nil {
		return nil, err
	}
	var counts []DeviceCounts
	err = h.eachCounting(devices, true, func(d DeviceState, t *nft.Table) {
		counts = append(counts, DeviceCounts{d.Name, countsOf(compiler.Describe(t), calls)})
	})
	return counts, err
}

// NoteCounts reads what the rules in some device namespaces have counted, so
// that tables that somebody removes come back with it.
func (h *Host) NoteCounts(devices []DeviceState) error {
	return h.eachCounting(devices, false, func(DeviceState, *nft.Table) {})
}

// eachCounting reads the counters of device namespaces, those at zero too if
// idle is set.
func (h *Host) eachCounting(devices []DeviceState, idle bool, do func(DeviceState, *nft.Table)) error {
	for _, d := range devices {
		if !d.Present {
			continue
		}
		dev, err := h.open(model.DeviceNamespace{Name: d.Name, Path: d.Path})
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went just now
		}
		if err != nil {
			return err
		}
		t, err := dev.conn.Counts(compiler.TableName, idle, compiler.CountingSet)
		if errors.Is(err, fs.ErrNotExist) {
			t, err = nil, nil
		}
		if err != nil {
			return fmt.Errorf("device namespace %s: read counters: %w", d.Name, err)
		}
		h.figures.note(dev, t)
		do(d, t)
	}
	return nil
}

// countsOf returns the counts of the socket namespaces of one device namespace.
func countsOf(described []compiler.Described, calls map[uint32][]syscalls.Tally) map[string]Counts {
	first := make(map[string]compiler.Described) // by policy: who has the packets
	for _, d := range described {
		if _, known := first[d.Policy]; !known && len(d.Counters) > 0 {
			first[d.Policy] = d
		}
	}
	all := make(map[string]Counts, len(described))
	for _, d := range described {
		under := first[d.Policy]
		c := Counts{AuditSince: under.AuditSince}
		if template, _, instance := strings.Cut(d.Name, "/"); instance {
			c.CountedUnder = template
		} else if under.Name != d.Name {
			c.CountedUnder = under.Name
		}
		type called struct {
			hook, name string
			outcome    compiler.Outcome
		}
		seen := make(map[called]bool) // of two rules that say the same, the first decides
		for _, rule := range under.Counters {
			n := RuleCount{Hook: rule.Hook, Number: rule.Number, Name: rule.Name, Text: strings.TrimSpace(rule.Rule), Outcome: rule.Outcome}
			if c.CountedUnder == "" {
				n.Packets = rule.Packets
			}
			this := called{rule.Hook, rule.Name, rule.Outcome}
			for _, t := range calls[d.Identity] {
				if !seen[this] && model.Hooks[t.Hook].String() == rule.Hook && t.Tag == rule.Tag() && outcomeOfCall[t.Outcome] == rule.Outcome {
					n.Calls += t.Count
				}
			}
			seen[this] = true
			if c.CountedUnder == "" || n.Calls > 0 {
				c.Rules = append(c.Rules, n)
			}
		}
		all[d.Name] = c
	}
	return all
}

var outcomeOfCall = map[syscalls.Outcome]compiler.Outcome{
	syscalls.Refused: compiler.Refused, syscalls.Audited: compiler.Audited, syscalls.Logged: compiler.Allowed,
}

// tallies reads the counts of the syscall tier, by identity. Those of rules
// that are no more are among them.
func (h *Host) tallies() (map[uint32][]syscalls.Tally, error) {
	tier, err := syscalls.Open(h.Instance())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer tier.Close()
	list, err := tier.Tallies()
	byIdentity := make(map[uint32][]syscalls.Tally)
	for _, t := range list {
		if int(t.Hook) < len(model.Hooks) {
			byIdentity[t.Identity] = append(byIdentity[t.Identity], t)
		}
	}
	return byIdentity, err
}
