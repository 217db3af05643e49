package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/lint"
)

func (c *cli) lintCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "lint -f PATH...",
		Short: "Say what a policy says in vain: rules that never match or change nothing, ends that contradict",
		Long: `Lint finds rules that no flow reaches or that change nothing, rules that the
other end contradicts, peers that can't be met, and binds that two namespaces may
have. It is computed from what the policy means, not guessed. Nothing is touched,
and no privilege is needed. docs/lint.md has all kinds of findings.

A finding is ignored by a comment with the reason, at the end of its line or on a
line of its own above:

  - {to: any} # lint:ignore redundant-rule kept while the other is tried

The exit status is 0 if nothing is found, 1 if something is, 2 on an error.`,
		Example: `  sockns lint -f policy.yaml
  sockns lint -f /etc/sockns -o sarif > sockns.sarif`,
		Args:        noArguments,
		Annotations: map[string]string{outputsKey: "text,json,sarif", errorStatusKey: "2"},
		RunE: func(*cobra.Command, []string) error {
			found, err := c.lint(files)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return exitStatus(1)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	return cmd
}

func (c *cli) lint(files []string) ([]lint.Finding, error) {
	loaded, err := c.load(files)
	if err != nil {
		return nil, err
	}
	found := loaded.Lint()
	switch c.output {
	case "json":
		return found, c.json(struct {
			Findings []lint.Finding `json:"findings"`
		}{found})
	case "sarif":
		return found, c.json(lint.SARIF(found, version()))
	}
	for _, f := range found {
		fmt.Fprintf(c.out, "%s: %s [%s]\n", f.Pos, f.Message, c.yellow(f.ID))
		if f.Rule != "" {
			fmt.Fprintf(c.out, "  %s\n", f.Rule)
		}
		fmt.Fprintf(c.out, "  remedy: %s\n", f.Remedy)
	}
	fmt.Fprintln(c.out, count(len(found), "finding"))
	return found, nil
}
