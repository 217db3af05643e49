// Package explain says how a policy decides a flow: which rule of which hook,
// which rules were passed over and why, what the applications see, and the
// smallest rules that would allow it. It is pure: the decision is that of
// [model.Decide], told in words.
package explain

import "github.com/sockns/sockns/model"

// Explanation is an answered question. It is what -o json prints.
type Explanation struct {
	Flow    string   `json:"flow"`
	Assumed []string `json:"assumed,omitempty"` // what the question left open
	Allowed bool     `json:"allowed"`
	// Error is what the connecting (or binding) application sees by the
	// policy; empty if the flow is allowed.
	Error model.Errno  `json:"error,omitempty"`
	Steps []Step       `json:"steps"` // the hooks that speak of it, in the order in which they are asked
	Sees  *Sees        `json:"sees,omitempty"`
	Fixes []Suggestion `json:"suggestions,omitempty"` // rules that would allow it, one for each hook that refuses
}

// Step is the decision of one hook.
type Step struct {
	Hook      string `json:"hook"`
	End       string `json:"end"` // "connecting" or "listening"
	Namespace string `json:"namespace,omitempty"`
	Action    string `json:"action"`
	// Error is the errno of a denial.
	Error  model.Errno  `json:"error,omitempty"`
	Reason model.Reason `json:"reason"`
	Why    string       `json:"why"` // the reason in words
	Audit  bool         `json:"audit,omitempty"`
	// Decides says that this is the refusal that the application sees.
	Decides bool     `json:"decides,omitempty"`
	Rule    *Rule    `json:"rule,omitempty"`
	Passed  []Passed `json:"passed,omitempty"`
}

// Rule is a rule of the policy in its words.
type Rule struct {
	Index int            `json:"index"` // from 1, in the list of its hook
	Words string         `json:"words"`
	Pos   model.Position `json:"position"`
}

// Passed is a rule that was asked and does not speak of the flow.
type Passed struct {
	Rule
	Mismatch model.Mismatch `json:"mismatch"`
	Why      string         `json:"why"`
}

// Sees is what the connecting (or binding) application sees of a refusal. The
// listening one sees nothing.
type Sees struct {
	Syscalls model.Sight `json:"syscalls"` // with the syscall tier
	Packets  model.Sight `json:"packets"`  // packets alone
}

// Explain answers a question.
func Explain(p *model.Policy, q model.Question) Explanation {
	d := q.Decide(p)
	e := Explanation{Flow: q.String(), Assumed: q.Assumed, Allowed: d.Allowed(), Error: d.Error()}
	for _, a := range asked(q, d) {
		e.Steps = append(e.Steps, step(p, q.Flow, a))
	}
	if refused := refusing(q, d); refused != nil {
		for i := range e.Steps {
			e.Steps[i].Decides = e.Steps[i].Hook == refused.verdict.Hook.String() && e.Steps[i].End == refused.end()
		}
		e.Sees = sees(q.Flow, *refused)
		e.Fixes = Suggest(p, q)
	}
	return e
}

// ask is one hook that is asked about a flow.
type ask struct {
	verdict  model.Verdict
	listens  bool
	us, them model.End
}

func (a ask) end() string {
	if a.listens {
		return "listening"
	}
	return "connecting"
}

// asked lists the hooks that have something to say, in the order in which
// they are asked.
func asked(q model.Question, d model.Decision) []ask {
	f := q.Flow
	if q.Hook == model.Bind {
		return []ask{{verdict: d.FromBind, us: f.From}}
	}
	var list []ask
	if d.FromBind.Reason != model.ByUnmanaged && (f.From.Address.Port() != 0 || d.FromBind.Action == model.Deny) {
		list = append(list, ask{verdict: d.FromBind, us: f.From})
	}
	list = append(list, ask{verdict: d.Connect, us: f.From, them: f.To})
	if d.ToBind.Reason != model.ByUnmanaged {
		list = append(list, ask{verdict: d.ToBind, listens: true, us: f.To})
	}
	return append(list, ask{verdict: d.Accept, listens: true, us: f.To, them: f.From})
}

// refusing returns the hook whose refusal is seen, or nil.
func refusing(q model.Question, d model.Decision) *ask {
	for _, a := range asked(q, d) {
		if a.verdict.Refuses() {
			return &a
		}
	}
	return nil
}

func step(p *model.Policy, f model.Flow, a ask) Step {
	v := a.verdict
	s := Step{
		Hook: v.Hook.String(), End: a.end(), Namespace: a.us.Namespace, Action: string(v.Action),
		Error: v.Error, Reason: v.Reason, Why: why(p, f, a), Audit: v.Audit,
	}
	if v.Rule != nil {
		r := ruleOf(v.Rule)
		s.Rule = &r
	}
	if len(v.Passed) > 0 {
		n := p.Namespace(a.us.Namespace)
		for i, m := range v.Passed {
			r := &n.Rules(v.Hook)[i]
			s.Passed = append(s.Passed, Passed{ruleOf(r), m, mismatch(p, f, a, r, m)})
		}
	}
	return s
}

func ruleOf(r *model.Rule) Rule { return Rule{r.Index, r.Words(), r.Pos} }

// sees returns what the application sees of the refusal that comes first.
func sees(f model.Flow, a ask) *Sees {
	r := model.Refusal{
		Hook: a.verdict.Hook, Error: a.verdict.Error, Protocol: f.Protocol,
		IPv6:     f.To.Address.Addr().Is6(),
		Loopback: f.From.Device != "" && f.From.Device == f.To.Device,
		Log:      a.verdict.Rule != nil && a.verdict.Rule.Log,
	}
	r.Managed = r.Loopback && f.From.Namespace != ""
	switch {
	case a.verdict.Hook != model.Bind:
		return &Sees{r.Syscalls(), r.Packets()}
	case a.listens:
		// Nothing is there to connect to; with packets alone what arrives is refused.
		r.Hook, r.Error = model.Accept, model.ECONNREFUSED
		return &Sees{r.Packets(), r.Packets()}
	}
	return &Sees{r.Syscalls(), r.Packets()}
}
