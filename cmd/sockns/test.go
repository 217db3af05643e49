package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/explain"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/source"
)

func (c *cli) testCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:         "test -f PATH... [TESTFILE...]",
		Short:       "Hold a policy against the expectations of its tests",
		Annotations: map[string]string{errorStatusKey: "2"},
		Long: `Test answers the flows that a policy lists under tests, and those of test
files, and compares the answers with what is expected: allow, deny, or an errno.
What does not hold is explained. Nothing is touched, and no privilege is needed.
docs/testing-policies.md has the form of expectations.

The exit status is 0 if all hold, 1 if one does not, 2 on an error.`,
		Example: `  sockns test -f policy.yaml
  sockns test -f /etc/sockns web.test db.test`,
		RunE: func(_ *cobra.Command, args []string) error {
			results, err := c.test(files, args)
			if err == nil {
				err = c.printResults(results)
			}
			if err != nil {
				return err
			}
			if failed(results) > 0 {
				return exitStatus(1)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	return cmd
}

func (c *cli) test(files, testFiles []string) ([]explain.Result, error) {
	loaded, err := c.load(files)
	if err != nil {
		return nil, err
	}
	expectations := loaded.Policy.Tests
	if len(testFiles) > 0 {
		texts, err := source.Files(testFiles)
		if err != nil {
			return nil, err
		}
		more, diagnostics := loaded.Policy.ParseTests(texts)
		for _, d := range diagnostics {
			fmt.Fprintln(c.err, d)
		}
		if diagnostics.HasErrors() {
			return nil, errSaid
		}
		expectations = append(expectations[:len(expectations):len(expectations)], more...)
	}
	if len(expectations) == 0 {
		return nil, errors.New("no expectations: write some under tests in the policy, or name a file of them")
	}
	return explain.Check(loaded.Policy, expectations), nil
}

func failed(results []explain.Result) (n int) {
	for _, r := range results {
		if !r.Met {
			n++
		}
	}
	return n
}

// resultJSON is a result as -o json prints it.
type resultJSON struct {
	Position    model.Position       `json:"position"`
	Flow        string               `json:"flow"`
	Want        string               `json:"want"`
	Got         string               `json:"got"`
	Met         bool                 `json:"met"`
	Explanation *explain.Explanation `json:"explanation,omitempty"`
}

func (c *cli) printResults(results []explain.Result) error {
	bad := failed(results)
	if c.output == "json" {
		list := make([]resultJSON, len(results))
		for i, r := range results {
			list[i] = resultJSON{r.Expectation.Pos, r.Expectation.Flow, r.Expectation.Want, r.Got, r.Met, r.Explanation}
		}
		return c.json(struct {
			Passed  int          `json:"passed"`
			Failed  int          `json:"failed"`
			Results []resultJSON `json:"results"`
		}{len(results) - bad, bad, list})
	}
	for _, r := range results {
		if r.Met {
			continue
		}
		fmt.Fprintf(c.out, "%s: %s: %s: expected %s, got %s\n", r.Expectation.Pos, c.red("failed"), r.Expectation.Flow, r.Expectation.Want, r.Got)
		for _, line := range strings.Split(strings.TrimSpace(r.Explanation.String()), "\n") {
			fmt.Fprintf(c.out, "    %s\n", line)
		}
	}
	fmt.Fprintf(c.out, "%d passed, %d failed\n", len(results)-bad, bad)
	return nil
}
