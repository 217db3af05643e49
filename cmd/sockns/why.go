package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
)

func (c *cli) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why PID|NAMESPACE",
		Short: "Why something was refused, and the smallest rule that would allow it",
		Long: `Why asks the running controller for the last refusals of a process, a socket
namespace or an instance of a template (user/1000), the last first: what was
refused, the rule and its line in the policy, the errno that the application got,
and the smallest rule that would allow it. In audit, what would have been refused
is told in the same way.

The controller remembers the last 32 of each socket namespace since it was
started; watch shows them as they happen.`,
		Example: `  sockns why web
  sockns why 4242`,
		Args: oneArgument("process or socket namespace"),
		RunE: func(cmd *cobra.Command, args []string) error {
			why, err := api.NewClient(controller.RuntimeDir()).Why(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(why)
			}
			c.printWhy(why)
			return nil
		},
	}
}

func (c *cli) printWhy(w *controller.Why) {
	subject := w.Namespace
	if w.PID != 0 {
		subject = fmt.Sprintf("process %d of %s", w.PID, w.Namespace)
	}
	if len(w.Refusals) == 0 {
		fmt.Fprintf(c.out, "%s: nothing was refused since the controller was started\n", subject)
		return
	}
	fmt.Fprintf(c.out, "%s: %s, the last first\n", c.bold(subject), count(len(w.Refusals), "refusal"))
	said := make(map[string]bool)
	for _, cause := range w.Refusals {
		e, d := cause.Event, cause.Event.Decided
		what := c.red(d.Verb())
		if d.Mode == model.Audit {
			what = c.yellow(d.Verb())
		}
		fmt.Fprintf(c.out, "\n%s %s %s %s", e.Time.Local().Format("2006-01-02 15:04:05"), what, d.Hook, d.Flow())
		if d.Errno != "" {
			fmt.Fprintf(c.out, " with %s", d.Errno)
		}
		if d.Count > 1 {
			fmt.Fprintf(c.out, ", %d times", d.Count)
		}
		fmt.Fprintf(c.out, "\n  by %s: %s\n", d.RuleText(), d.Text)
		if len(d.OneOf) > 0 {
			fmt.Fprintf(c.out, "  of one of %s, which share their rules\n", strings.Join(d.OneOf, ", "))
		}
		if d.Process != nil {
			fmt.Fprintf(c.out, "  %s\n", d.Process)
		}
		for _, fix := range cause.Fixes {
			if text := fix.String(); !said[text] {
				said[text] = true
				fmt.Fprintf(c.out, "  to allow it: %s\n", c.green(text))
			}
		}
	}
}
