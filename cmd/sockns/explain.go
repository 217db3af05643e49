package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/explain"
	"github.com/sockns/sockns/model"
)

func (c *cli) explainCommand() *cobra.Command {
	var files []string
	var pid int
	cmd := &cobra.Command{
		Use:         "explain -f PATH... [--live PID] FLOW",
		Short:       "Say how a policy decides a flow, by which rule, and what the application sees",
		Annotations: map[string]string{errorStatusKey: "2"},
		Long: `Explain says which rule of which end decides a flow, which rules were passed
over and why, what the application sees, and the smallest rules that would allow
what is refused. Nothing is touched, and no privilege is needed.

A flow begins with who acts: a socket namespace, unmanaged, or the address of
another machine. What is left out is filled in and said. docs/testing-policies.md
has the grammar.

With --live a running process acts, and the flow begins with what it does. Whose
its sockets are follows from its cgroup and its network namespace, which root and
the process's own user can read.

The exit status is 0 if the flow is allowed, 1 if it is refused, 2 on an error.`,
		Example: `  sockns explain -f policy.yaml web connect db tcp/5432
  sockns explain -f policy.yaml web connect tcp 10.0.0.5:5432
  sockns explain -f policy.yaml unmanaged connect tcp 127.0.0.1:5432
  sockns explain -f policy.yaml unmanaged connect db tcp/5432 from 10.1.2.3
  sockns explain -f policy.yaml user/1000 connect self tcp/8888
  sockns explain -f policy.yaml 203.0.113.9 connect web tcp/443
  sockns explain -f policy.yaml web bind tcp 0.0.0.0:80
  sockns explain -f policy.yaml --live 4242 connect tcp 127.0.0.1:5432`,
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := question{files: files, words: args, live: cmd.Flags().Changed("live"), pid: pid}
			e, err := c.explain(asked)
			if err != nil {
				return err
			}
			if err := c.printExplanation(e); err != nil {
				return err
			}
			if !e.Allowed {
				return exitStatus(1)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().IntVar(&pid, "live", 0, "the running process `PID` acts")
	return cmd
}

// question is what explain is asked.
type question struct {
	files, words []string
	live         bool // the process pid acts, and words begin with what it does
	pid          int
}

// explanation is an answer as -o json prints it.
type explanation struct {
	Process *controller.Process `json:"process,omitempty"` // with --live
	explain.Explanation
}

func (c *cli) explain(q question) (explanation, error) {
	loaded, err := c.load(q.files)
	if err != nil {
		return explanation{}, err
	}
	var e explanation
	words := q.words
	if q.live {
		if e.Process, err = controller.Locate(loaded.Policy, q.pid); err != nil {
			return explanation{}, err
		}
		words = append(strings.Fields(e.Process.Who()), words...)
	}
	asked, err := loaded.Policy.ParseQuestion(strings.Join(words, " "))
	if err != nil {
		return explanation{}, flowError(words, err)
	}
	e.Explanation = explain.Explain(loaded.Policy, asked)
	if q.live {
		e.Assumed = append([]string{e.Process.String()}, e.Assumed...)
	}
	return e, nil
}

// flowError shows a mistake in the words of a flow at its place.
func flowError(words []string, err error) error {
	var wrong *model.QuestionError
	if !errors.As(err, &wrong) || len(words) == 0 {
		return err
	}
	return fmt.Errorf("%s\n  %s\n  %s^", wrong.Message, strings.Join(words, " "), strings.Repeat(" ", wrong.Column-1))
}

func (c *cli) printExplanation(e explanation) error {
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
