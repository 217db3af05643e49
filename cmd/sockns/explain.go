package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/explain"
	"github.com/sockns/sockns/model"
)

func (c *cli) explainCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Annotations: map[string]string{errorStatusKey: "2"},
		Use:         "explain -f PATH... FLOW",
		Short:       "Say how a policy decides a flow, by which rule, and what the application sees",
		Long: `Explain says which rule of which end decides a flow, which rules were passed
over and why, what the application sees, and the smallest rules that would allow
what is refused. Nothing is touched, and no privilege is needed.

A flow begins with who acts: a socket namespace, unmanaged, or the address of
another machine. What is left out is filled in and said. docs/testing-policies.md
has the grammar.

The exit status is 0 if the flow is allowed, 1 if it is refused, 2 on an error.`,
		Example: `  sockns explain -f policy.yaml web connect db tcp/5432
  sockns explain -f policy.yaml web connect tcp 10.0.0.5:5432
  sockns explain -f policy.yaml unmanaged connect tcp 127.0.0.1:5432
  sockns explain -f policy.yaml unmanaged connect db tcp/5432 from 10.1.2.3
  sockns explain -f policy.yaml user/1000 connect self tcp/8888
  sockns explain -f policy.yaml 203.0.113.9 connect web tcp/443
  sockns explain -f policy.yaml web bind tcp 0.0.0.0:80`,
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := c.explain(files, args)
			if err != nil {
				return exitStatus{code: 2, err: quiet(err)}
			}
			if err := c.printExplanation(e); err != nil {
				return exitStatus{code: 2, err: err}
			}
			if !e.Allowed {
				return exitStatus{code: 1}
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	return cmd
}

func (c *cli) explain(files, words []string) (explain.Explanation, error) {
	loaded, err := c.load(files)
	if err != nil {
		return explain.Explanation{}, err
	}
	q, err := loaded.Policy.ParseQuestion(strings.Join(words, " "))
	if err != nil {
		return explain.Explanation{}, flowError(words, err)
	}
	return explain.Explain(loaded.Policy, q), nil
}

// flowError shows a mistake in the words of a flow at its place.
func flowError(words []string, err error) error {
	var wrong *model.QuestionError
	if !errors.As(err, &wrong) || len(words) == 0 {
		return err
	}
	return fmt.Errorf("%s\n  %s\n  %s^", wrong.Message, strings.Join(words, " "), strings.Repeat(" ", wrong.Column-1))
}

func (c *cli) printExplanation(e explain.Explanation) error {
	if c.output == "json" {
		return c.json(e)
	}
	verdict, rest, _ := strings.Cut(e.String(), ":")
	if e.Allowed {
		verdict = c.green(verdict)
	} else {
		verdict = c.red(verdict)
	}
	fmt.Fprint(c.out, verdict, ":", rest)
	return nil
}
