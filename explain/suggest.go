package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
)

// Suggestion is a rule that would make one hook allow a flow and changes
// nothing else that the same protocol, port and peer do not share.
type Suggestion struct {
	Namespace string `json:"namespace"` // whose list it goes to; of an instance, the template
	Hook      string `json:"hook"`
	Rule      string `json:"rule"` // YAML: {protocol: tcp, ports: 5432, to: db}
	// Before is the place of the rule that refuses now, which the new one has
	// to precede; nil: anywhere in the list.
	Before *model.Position `json:"before,omitempty"`
	// Note says what else the rule changes.
	Note  string `json:"note,omitempty"`
	rule  model.Rule
	first bool // a bind rule that makes deny the default
}

// String says what to write where.
func (s Suggestion) String() string {
	where := fmt.Sprintf("%s of %s", s.Hook, s.Namespace)
	if s.Before != nil {
		where = fmt.Sprintf("%s of %s, before %s", s.Hook, s.Namespace, s.Before)
	}
	if s.Note != "" {
		where += "; " + s.Note
	}
	return fmt.Sprintf("- %s  (%s)", s.Rule, where)
}

// Suggest returns the smallest rule for each hook that refuses, which
// together would allow what the question asks about; none if it is allowed.
func Suggest(p *model.Policy, q model.Question) []Suggestion {
	var list []Suggestion
	for _, a := range asked(q, q.Decide(p)) {
		if !a.verdict.Refuses() {
			continue
		}
		still := func(b ask) bool {
			return b.verdict.Hook == a.verdict.Hook && b.listens == a.listens && b.verdict.Refuses()
		}
		for _, rule := range candidates(p, q.Flow, a) {
			s := suggestion(p, a, rule)
			if !slices.ContainsFunc(asked(q, q.Decide(s.Apply(p))), still) {
				list = append(list, s)
				break
			}
		}
	}
	return list
}

// candidates returns rules for the flow, the one that says least first.
func candidates(p *model.Policy, f model.Flow, a ask) []model.Rule {
	rule := model.Rule{Hook: a.verdict.Hook, Action: model.Allow, Protocols: []model.Protocol{f.Protocol}}
	port := f.To.Address.Port()
	if rule.Hook == model.Bind {
		port = a.us.Address.Port()
	} else {
		rule.Peers = []model.Peer{peer(p, f, a)}
	}
	if f.Protocol.HasPorts() && port != 0 {
		rule.Ports = []model.PortRange{{First: port, Last: port}}
	}
	list := []model.Rule{rule}
	if local := a.us.Local(); local.IsValid() {
		rule.Local = []model.Peer{{Kind: model.PeerAddress, Address: model.AddressRange{First: local, Last: local}}}
		list = append(list, rule)
	}
	return list
}

// peer names the other end as narrowly as the hook can know it.
func peer(p *model.Policy, f model.Flow, a ask) model.Peer {
	them := a.them
	known := a.us.Device != "" && a.us.Device == them.Device && (f.Protocol == model.TCP || f.Protocol == model.UDP)
	switch {
	case known && them.Namespace == a.us.Namespace:
		return model.Peer{Kind: model.PeerSelf}
	case known && them.Namespace == "":
		return model.Peer{Kind: model.PeerUnmanaged}
	case known:
		return model.Peer{Kind: model.PeerNamespace, Name: p.Namespace(them.Namespace).Name}
	case !them.Local().IsValid():
		return model.Peer{Kind: model.PeerAny}
	}
	if n := p.Namespace(them.Namespace); n != nil && slices.ContainsFunc(n.Addresses, func(x model.AddressRange) bool { return x.Contains(them.Local()) }) {
		return model.Peer{Kind: model.PeerNamespace, Name: n.Name}
	}
	return model.Peer{Kind: model.PeerAddress, Address: model.AddressRange{First: them.Local(), Last: them.Local()}}
}

func suggestion(p *model.Policy, a ask, rule model.Rule) Suggestion {
	n := p.Namespace(a.us.Namespace)
	rule.Index = len(n.Rules(rule.Hook)) + 1
	s := Suggestion{Namespace: n.Name, Hook: rule.Hook.String(), Rule: ruleYAML(&rule)}
	if r := a.verdict.Rule; r != nil {
		rule.Index = r.Index
		s.Before = &r.Pos
	}
	if s.first = rule.Hook == model.Bind && len(n.Bind) == 0 && n.Default.Bind == nil; s.first {
		s.Note = "as the first bind rule it makes deny the default: add default: {bind: allow} to keep the rest as it is"
	}
	s.rule = rule
	return s
}

// Apply returns a copy of a policy with the suggested rule in its place, and
// with what Note asks for.
func (s Suggestion) Apply(p *model.Policy) *model.Policy {
	after := *p
	after.SocketNamespaces = slices.Clone(p.SocketNamespaces)
	n := after.Namespace(s.Namespace)
	rules := slices.Insert(slices.Clone(n.Rules(s.rule.Hook)), s.rule.Index-1, s.rule)
	for i := range rules {
		rules[i].Index = i + 1
	}
	switch s.rule.Hook {
	case model.Bind:
		n.Bind = rules
		if s.first {
			n.Default.Bind = &model.Outcome{Action: model.Allow}
		}
	case model.Connect:
		n.Connect = rules
	default:
		n.Accept = rules
	}
	return &after
}

// ruleYAML writes an allowing rule as a line of a policy file.
func ruleYAML(r *model.Rule) string {
	keys := []string{"protocol: " + join(r.Protocols)}
	if len(r.Ports) > 0 {
		keys = append(keys, "ports: "+join(r.Ports))
	}
	if len(r.Local) > 0 {
		keys = append(keys, "local: "+quoted(r.Local[0].String()))
	}
	if len(r.Peers) > 0 {
		key := "to: "
		if r.Hook == model.Accept {
			key = "from: "
		}
		keys = append(keys, key+quoted(r.Peers[0].String()))
	}
	return "{" + strings.Join(keys, ", ") + "}"
}

// quoted quotes what YAML's flow style can't have plain.
func quoted(s string) string {
	if strings.Contains(s, ":") {
		return `"` + s + `"`
	}
	return s
}
