package explain

import "github.com/sockns/sockns/model"

// Result is an expectation with the answer to its question.
type Result struct {
	Expectation model.Expectation
	Met         bool
	Got         string // "allow", or the errno of a refusal
	// Explanation is that of an expectation that is not met.
	Explanation *Explanation
}

// Check holds expectations against a policy.
func Check(p *model.Policy, list []model.Expectation) []Result {
	results := make([]Result, len(list))
	for i, e := range list {
		d := e.Question.Decide(p)
		results[i] = Result{Expectation: e, Met: e.Met(d), Got: string(model.Allow)}
		if !d.Allowed() {
			results[i].Got = string(d.Error())
		}
		if !results[i].Met {
			explained := Explain(p, e.Question)
			results[i].Explanation = &explained
		}
	}
	return results
}
