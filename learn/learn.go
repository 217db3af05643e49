// Package learn writes rules for traffic that was seen.
//
// [Rules] finds the smallest readable rules of a namespace that allow exactly
// what was seen and refused (or would have been, in audit), and [Patch] adds
// them to the text of its policy. Nothing is allowed that was not seen unless
// [Options] ask for it. The package is pure.
package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sockns/sockns/model"
)

// Flow is one kind of traffic of a namespace, as often as it was seen.
type Flow struct {
	Namespace string // of the socket that the hook decides about; an instance (user/1000) of a template
	Hook      model.Hook
	Protocol  model.Protocol
	Local     netip.AddrPort // the zero Addr: any; port 0: the kernel picks
	Remote    netip.AddrPort // zero for Bind
	// Peer is the socket namespace of the other end; empty if it is elsewhere
	// or not known.
	Peer string
	// Unmanaged says that the other end is a socket of the same device
	// namespace that no socket namespace claims.
	Unmanaged   bool
	Count       uint64
	First, Last time.Time
}

// String returns "web connect db 10.0.0.5:5432/tcp".
func (f Flow) String() string {
	who := f.Peer
	if f.Unmanaged {
		who = "unmanaged"
	}
	if f.Hook == model.Bind {
		at := f.Local.String()
		if !f.Local.Addr().IsValid() {
			at = fmt.Sprintf("*:%d", f.Local.Port())
		}
		return fmt.Sprintf("%s bind %s/%s", f.Namespace, at, f.Protocol)
	}
	if who != "" {
		who += " "
	}
	if f.Hook == model.Accept {
		return fmt.Sprintf("%s accept %s%s/%s from %s", f.Namespace, who, f.Local, f.Protocol, f.Remote.Addr())
	}
	return fmt.Sprintf("%s connect %s%s/%s", f.Namespace, who, f.Remote, f.Protocol)
}

// Options say where rules may allow more than was seen.
type Options struct {
	// Prefixes lets addresses be written as the prefix that they are in, at
	// most a /24 or a /64, where at least PrefixMin of it were seen.
	Prefixes bool
	// EphemeralPorts is what the kernel picks ports from (ip_local_port_range,
	// Documentation/networking/ip-sysctl.rst).
	EphemeralPorts model.PortRange
	// WholeEphemeral writes EphemeralPorts where a server's port is of them.
	WholeEphemeral bool
}

// PrefixMin is how many addresses make a prefix.
const PrefixMin = 3

// DefaultEphemeralPorts is ip_local_port_range where nobody changed it.
var DefaultEphemeralPorts = model.PortRange{First: 32768, Last: 60999}

// Learned is what the flows of a namespace ask for.
type Learned struct {
	Namespace string
	Rules     []Rule
	// Allowed were allowed by the policy already, by count of flows.
	Allowed int
	// Refused are flows that a rule denies: somebody wanted that, and it stays.
	Refused []Refused
	// Answers belong to other flows and need no rule.
	Answers []Flow

	flows []Flow // that the rules are for
}

// Refused is a flow and the rule that denies it.
type Refused struct {
	Flow Flow
	Rule *model.Rule
}

// Rules learns rules for a namespace of a policy without errors. Flows of
// other namespaces are left aside.
func Rules(p *model.Policy, namespace string, flows []Flow, o Options) (*Learned, error) {
	n := p.Namespace(namespace)
	if n == nil {
		return nil, fmt.Errorf("the policy has no socket namespace %s", namespace)
	}
	l := &Learned{Namespace: n.Name}
	var mine []Flow
	for _, f := range flows {
		if p.Namespace(f.Namespace) == n {
			mine = append(mine, f)
		}
	}
	mine = slices.DeleteFunc(mine, func(f Flow) bool {
		answer := isAnswer(f, mine, o.EphemeralPorts)
		if answer {
			l.Answers = append(l.Answers, f)
		}
		return answer
	})
	var needs []need
	for _, f := range mine {
		v := decide(p, f)
		switch {
		case v.Action == model.Allow:
			l.Allowed++
		case v.Rule != nil:
			l.Refused = append(l.Refused, Refused{f, v.Rule})
		default:
			l.flows = append(l.flows, f)
			needs = append(needs, needOf(p, n, f, o))
		}
	}
	if o.Prefixes {
		needs = prefixes(needs)
	}
	l.Rules = rulesOf(needs)
	l.keepOtherBinds(n)
	return l, nil
}

// keepOtherBinds adds a rule where the first bind rule would change what no
// rule is about: a namespace without any may bind all of its own addresses.
func (l *Learned) keepOtherBinds(n *model.SocketNamespace) {
	binds := slices.ContainsFunc(l.Rules, func(r Rule) bool { return r.Hook == model.Bind })
	if binds && len(n.Bind) == 0 && n.Default.Bind == nil {
		l.Rules = append(l.Rules, Rule{Hook: model.Bind, Note: "its own addresses, as before"})
	}
}

// decide asks the model about the hook of a flow.
func decide(p *model.Policy, f Flow) model.Verdict {
	n := p.Namespace(f.Namespace)
	us := model.End{Namespace: f.Namespace, Device: n.Device, Address: f.Local}
	if f.Hook == model.Bind {
		return model.DecideBind(p, f.Namespace, f.Protocol, f.Local)
	}
	them := model.End{Namespace: f.Peer, Address: f.Remote}
	if m := p.Namespace(f.Peer); f.Peer != "" && m != nil {
		them.Device = m.Device
	} else if f.Unmanaged {
		them.Device = n.Device
	}
	if f.Hook == model.Connect {
		return model.Decide(p, model.Flow{Protocol: f.Protocol, From: us, To: them}).Connect
	}
	return model.Decide(p, model.Flow{Protocol: f.Protocol, From: them, To: us}).Accept
}

// isAnswer reports whether a datagram answers another flow of the namespace:
// the same two ends the other way round, where the ports tell who asked.
func isAnswer(f Flow, all []Flow, ephemeral model.PortRange) bool {
	if f.Hook == model.Bind || f.Protocol != model.UDP && f.Protocol != model.UDPLite {
		return false
	}
	asked, asking := f.Local.Port(), f.Remote.Port() // f answers what came to us
	if f.Hook == model.Accept {
		asked, asking = asking, asked // f answers what we sent
	}
	if ephemeral.Contains(asked) || !ephemeral.Contains(asking) {
		return false
	}
	return slices.ContainsFunc(all, func(g Flow) bool {
		return g.Hook != f.Hook && g.Hook != model.Bind && g.Protocol == f.Protocol && g.Namespace == f.Namespace &&
			g.Remote == f.Remote && (g.Local.Port() == f.Local.Port() || f.Hook == model.Accept && g.Local.Port() == 0)
	})
}

// Verify checks a policy with the rules in it: it refuses nothing that they
// were learned from.
func (l *Learned) Verify(p *model.Policy) error {
	for _, f := range l.flows {
		if v := decide(p, f); v.Action != model.Allow {
			return fmt.Errorf("learned rules refuse what was seen: %s", f)
		}
	}
	return nil
}
