package decisions

import (
	"slices"
	"strings"
	"sync"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
)

// View is what the numbers that the kernel tells mean under one policy. It is
// safe for concurrent use.
type View struct {
	policy  *model.Policy
	names   model.Names
	devices map[string]*compiler.Index
	cookies map[uint64]string // device namespaces by their cookies

	mu     sync.Mutex
	joined map[member]string // instances that came since
}

type member struct {
	device   string
	identity uint32
}

// NewView returns a view of a policy in force. Nothing that it is made of may
// change any more.
func NewView(p *model.Policy, devices map[string]*compiler.Index, cookies map[uint64]string) *View {
	return &View{policy: p, names: p.Names(), devices: devices, cookies: cookies, joined: make(map[member]string)}
}

// Same reports whether a view is one of the same policy.
func (v *View) Same(o *View) bool { return v.policy == o.policy }

// Join tells of an instance of a template that was not there when the policy
// was compiled.
func (v *View) Join(device, name string) {
	ix := v.devices[device]
	if ix == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.joined[member{device, ix.Identity(name)}] = name
}

// name returns the socket namespace or instance of an identity.
func (v *View) name(device string, identity uint32) (string, bool) {
	ix := v.devices[device]
	if ix == nil {
		return "", false
	}
	if name, ok := ix.Name(identity); ok {
		return name, true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	name, ok := v.joined[member{device, identity}]
	return name, ok
}

// peer returns the name of the other end; "unmanaged" where nobody claims it.
func (v *View) peer(device string, identity uint32) string {
	if compiler.Unmanaged(identity) {
		return model.Peer{Kind: model.PeerUnmanaged}.String()
	}
	name, _ := v.name(device, identity)
	return name
}

// sharing returns the namespaces and instances whose rules are those of one.
func (v *View) sharing(device, name string) []string {
	ix := v.devices[device]
	if ix == nil || name == "" {
		return nil
	}
	return ix.Sharing(name)
}

// sources is sharing with templates in place of their instances.
func (v *View) sources(device, name string) []string {
	list := v.sharing(device, name)
	for i, n := range list {
		list[i], _, _ = strings.Cut(n, "/")
	}
	return slices.Compact(list)
}

// ruleOfTag returns which rule of a namespace the syscall tier counts under a
// tag; 0 is the default.
func (v *View) ruleOfTag(device string, identity uint32, h model.Hook, tag uint32) (int, bool) {
	name, _ := v.name(device, identity)
	n := v.names.Namespace(name)
	if n == nil || tag == 0 {
		return 0, n != nil
	}
	i := slices.IndexFunc(n.Rules(h), func(r model.Rule) bool { return compiler.RuleTag(&r) == tag })
	return i + 1, i >= 0
}

// logs reports whether a rule is one that logs what it allows.
func (v *View) logs(namespace string, h model.Hook, rule int) bool {
	n := v.names.Namespace(namespace)
	return n != nil && rule > 0 && rule <= len(n.Rules(h)) && n.Rules(h)[rule-1].Log
}

// ruleName returns the words by which counters know a rule or default; "" if
// there is no such rule.
func (v *View) ruleName(namespace string, h model.Hook, rule int) string {
	n := v.names.Namespace(namespace)
	switch {
	case n == nil || rule > len(n.Rules(h)):
		return ""
	case rule > 0:
		return compiler.RuleName(&n.Rules(h)[rule-1])
	}
	return compiler.DefaultName
}

// countedUnder is [compiler.Index.CountedUnder].
func (v *View) countedUnder(device, name string) string {
	ix := v.devices[device]
	if ix == nil || name == "" {
		return ""
	}
	return ix.CountedUnder(name)
}

// rule returns a rule in words, its place, and whether it alone is in audit.
func (v *View) rule(namespace string, h model.Hook, index int) (text string, at model.Position, audit bool) {
	n := v.names.Namespace(namespace)
	if n == nil {
		return "", at, false
	}
	if rules := n.Rules(h); index > 0 {
		if index > len(rules) {
			return "a rule of a former policy", n.Pos, false
		}
		r := &rules[index-1]
		return r.Words(), r.Pos, r.Audit
	}
	if d := n.Default.For(h); d != nil {
		return "default", d.Pos, false
	}
	return "default", n.Pos, false
}
