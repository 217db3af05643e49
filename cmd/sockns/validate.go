package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
)

func (c *cli) validateCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "validate -f PATH...",
		Short: "Check a policy; nothing is touched, no privilege is needed",
		Long: `Validate says what is wrong with a policy, and as warnings what it says in vain:
the findings of lint, which has more about them.

The exit status is 0 if the policy can be used, with or without warnings, and 1
if it can't.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if c.output == "json" {
				return c.validateJSON(files)
			}
			l, err := c.load(files)
			if err != nil {
				return err
			}
			c.warn(l.Warnings())
			fmt.Fprintf(c.out, "valid: %s, %s\n",
				count(len(l.Policy.SocketNamespaces), "socket namespace"), count(len(l.Policy.DeviceNamespaces), "device namespace"))
			return nil
		},
	}
	fileFlag(cmd, &files)
	return cmd
}

// diagnosticJSON is a diagnostic as -o json prints it.
type diagnosticJSON struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
}

func diagnosticsJSON(list model.Diagnostics) []diagnosticJSON {
	out := make([]diagnosticJSON, 0, len(list))
	for _, d := range list {
		out = append(out, diagnosticJSON{d.Pos.File, d.Pos.Line, d.Pos.Column, fmt.Sprint(d.Severity), d.Message})
	}
	return out
}

func (c *cli) validateJSON(files []string) error {
	if len(files) == 0 {
		return fmt.Errorf("no policy: name a file or a directory with -f")
	}
	l, err := controller.Load(files)
	if err != nil {
		return err
	}
	err = c.json(struct {
		Valid       bool             `json:"valid"`
		Diagnostics []diagnosticJSON `json:"diagnostics"`
	}{l.Policy != nil, diagnosticsJSON(append(l.Diagnostics, l.Warnings()...))})
	if err == nil && l.Policy == nil {
		err = errSaid
	}
	return err
}

// count returns "1 thing" or "2 things".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
