package explain_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/sockns/sockns/explain"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/model/modeltest/golden"
)

// TestExplanations answers each line of the file flows of an archive and
// compares the answers with its file explanations.
func TestExplanations(t *testing.T) {
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, a *txtar.Archive) []txtar.File {
		p := modeltest.Parse(t, string(a.Files[0].Data))
		var got strings.Builder
		for _, line := range strings.Split(strings.TrimSpace(string(a.Files[1].Data)), "\n") {
			q, err := p.ParseQuestion(line)
			if err != nil {
				fmt.Fprintf(&got, "%s\n  %v\n\n", line, err)
				continue
			}
			fmt.Fprintln(&got, explain.Explain(p, q))
		}
		return golden.Last(a, got.String())
	})
}

// TestExplainAgreesWithDecide holds explanations of drawn flows against the
// reference, and their suggestions against what they promise.
func TestExplainAgreesWithDecide(t *testing.T) {
	policies := modeltest.YAML(modeltest.Usual)
	rapid.Check(t, func(t *rapid.T) {
		p := modeltest.Parse(t, policies.Draw(t, "policy"))
		q := model.Question{Hook: model.Connect, Flow: modeltest.Flow(p).Draw(t, "flow")}
		if rapid.IntRange(0, 3).Draw(t, "bind") == 0 {
			q.Hook = model.Bind
		}
		d := q.Decide(p)
		e := explain.Explain(p, q)
		if e.Allowed != d.Allowed() || e.Error != d.Error() {
			t.Fatalf("%s: allowed %v %s; Decide says %v %s", e, e.Allowed, e.Error, d.Allowed(), d.Error())
		}
		checkSteps(t, e)
		after := p
		for _, s := range e.Fixes {
			after = s.Apply(after)
		}
		if d := q.Decide(after); !d.Allowed() {
			t.Fatalf("%s\nstill refused (%s) with the suggestions", e, d.Error())
		}
	})
}

// checkSteps looks for what no explanation may lack.
func checkSteps(t *rapid.T, e explain.Explanation) {
	decides := 0
	for _, s := range e.Steps {
		if s.Decides {
			decides++
			if s.Action != string(model.Deny) || s.Audit {
				t.Fatalf("%s\ndecided by a step that does not refuse", e)
			}
		}
		if s.Rule != nil && s.Rule.Index != len(s.Passed)+1 {
			t.Fatalf("%s\nrule %d decides, %d were passed over", e, s.Rule.Index, len(s.Passed))
		}
		for _, passed := range s.Passed {
			if passed.Mismatch == "" || passed.Why == "" {
				t.Fatalf("%s\nrule %d was passed over without a reason", e, passed.Index)
			}
		}
		if s.Why == "" {
			t.Fatalf("%s\na step without a reason", e)
		}
	}
	if refused := !e.Allowed; refused != (decides == 1) || refused != (e.Sees != nil) || refused != (len(e.Fixes) > 0) {
		t.Fatalf("%s\n%d steps decide, sees %v, %d suggestions", e, decides, e.Sees, len(e.Fixes))
	}
}

// TestQuestionsAreReadBack reads the words of drawn questions.
func TestQuestionsAreReadBack(t *testing.T) {
	policies := modeltest.YAML(modeltest.Usual)
	rapid.Check(t, func(t *rapid.T) {
		p := modeltest.Parse(t, policies.Draw(t, "policy"))
		q := model.Question{Hook: model.Connect, Flow: modeltest.Flow(p).Draw(t, "flow")}
		first, err := p.ParseQuestion(q.String())
		if err != nil {
			t.Skip(err) // a flow between other machines, or to another's loopback
		}
		again, err := p.ParseQuestion(first.String())
		if err != nil || again.Flow != first.Flow {
			t.Fatalf("%q: %v, then %v: %v", first, first.Flow, again.Flow, err)
		}
	})
}
