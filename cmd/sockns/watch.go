package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
)

func (c *cli) watchCommand() *cobra.Command {
	var refused, audit bool
	cmd := &cobra.Command{
		Use:   "watch [NAMESPACE...]",
		Short: "Follow what is refused, and allowed by rules that log, as it happens",
		Long: `Watch prints each decision as the running controller hears of it, until it is
interrupted: connects, accepts, binds and datagrams that were refused, that would
have been refused in audit, or that a rule with log: true allowed; with the rule's
line in the policy, the errno, and the process where the kernel tells it. What is
repeated is counted. Of a template's name, all its instances are shown.

With -o json each decision is a line of JSON, which learn reads. In audit, what
enforcing would not have come to, as the other end would have refused first, is
told in JSON alone, as "behind".`,
		Example: `  sockns watch
  sockns watch web db --refused
  sockns watch -o json > seen.json`,
		RunE: func(cmd *cobra.Command, names []string) error {
			wanted := func(e events.Event) bool {
				if e.Decided == nil {
					return len(names) == 0 || e.Kind == events.Lost
				}
				if e.Decided.Behind && c.output == "text" {
					return false
				}
				denied, audited := e.Decided.Action == model.Deny, e.Decided.Mode == model.Audit
				if (refused || audit) && !(denied && (refused && !audited || audit && audited)) {
					return false
				}
				return len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return decides(n, e) })
			}
			begun := func() {
				if c.output == "text" {
					fmt.Fprintln(c.out, c.bold(watchHeader))
				}
			}
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			err := api.NewClient(controller.RuntimeDir()).Events(ctx, []events.Kind{events.Decision, events.Lost}, begun, func(e events.Event) error {
				switch {
				case !wanted(e):
					return nil
				case c.output == "json" || e.Decided == nil:
					return c.printEvent(e)
				}
				_, err := fmt.Fprintln(c.out, c.decisionLine(e))
				return err
			})
			switch {
			case errors.Is(err, context.Canceled):
				return nil // the operator has seen enough
			case errors.Is(err, io.EOF):
				return fmt.Errorf("the controller has ended")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&refused, "refused", false, "only what was refused")
	cmd.Flags().BoolVar(&audit, "audit", false, "only what would have been refused")
	return cmd
}

// decides reports whether a name is that of the namespace that decided, of its
// template, or of one of those that it may be.
func decides(name string, e events.Event) bool {
	is := func(n string) bool { return n == name || strings.HasPrefix(n, name+"/") }
	return is(e.Namespace) || slices.ContainsFunc(e.Decided.OneOf, is)
}

const (
	watchColumns = "%-8s %-14s %-7s %-52s %-24s %-22s %s"
	watchTime    = "15:04:05"
)

var watchHeader = fmt.Sprintf(watchColumns, "TIME", "NAMESPACE", "HOOK", "WHAT", "RESULT", "RULE", "PROCESS")

// decisionLine is a decision as a line of columns.
func (c *cli) decisionLine(e events.Event) string {
	d := e.Decided
	namespace := e.Namespace
	if namespace == "" {
		namespace = oneOf(d.OneOf)
	}
	result := strings.TrimSpace(d.Verb() + " " + string(d.Errno))
	if d.Count > 1 {
		result += fmt.Sprintf(" x%d", d.Count)
	}
	process := ""
	if p := d.Process; p != nil {
		process = fmt.Sprintf("%s[%d] %s", p.Process, p.PID, p.Unit)
	} else if d.UID != nil {
		process = fmt.Sprintf("uid %d", *d.UID)
	}
	flow := d.Flow()
	if d.Count == 0 {
		flow = fmt.Sprintf("%d more than are told one by one", d.Unreported)
	}
	line := fmt.Sprintf(watchColumns, e.Time.Local().Format(watchTime), namespace, d.Hook, flow, result, place(d), process)
	line = strings.TrimRight(line, " ")
	switch {
	case d.Action == model.Allow:
		return c.green(line)
	case d.Mode == model.Audit:
		return c.yellow(line)
	}
	return c.red(line)
}

// oneOf names some of several namespaces, and says how many more there are.
func oneOf(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s|+%d", strings.Join(names[:most], "|"), more)
	}
	return strings.Join(names, "|")
}

// place is a rule's place in few letters: policy.yaml:12 #3.
func place(d *events.Decided) string {
	rule := "default"
	if d.Rule > 0 {
		rule = fmt.Sprintf("#%d", d.Rule)
	}
	if d.At.File == "" {
		return rule
	}
	return fmt.Sprintf("%s:%d %s", d.At.File, d.At.Line, rule)
}
