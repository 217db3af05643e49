package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
)

func (c *cli) statusCommand() *cobra.Command {
	var files []string
	var rules bool
	cmd := &cobra.Command{
		Use:   "status [-f PATH...]",
		Short: "What is enforced now: namespaces, members, sockets, counters",
		Long: `Status reads the tables of this sockns in all device namespaces. A member is
stale if its cgroup is gone or was made anew since the kernel was told of it.
With a policy, its members that do not exist are listed too, and which of its
rules are not enforced as asked.

The counters are the kernel's own: they go on when the policy is edited and when
the controller is started anew, each as long as its rule is there. Packets are
those that begin something; calls are those that the syscall tier refused, or
would have. A namespace in audit says since when, and what enforcing would have
refused by which rule; what was audited as a call comes as a packet too.

If a controller runs, it is asked which policy it keeps in force, since when,
what is wrong with its files, what it misses and what it had to repair.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var policy *model.Policy
			if len(files) > 0 {
				l, err := c.load(files)
				if err != nil {
					return err
				}
				policy = l.Policy
			}
			host, err := controller.OpenHost()
			if err != nil {
				return err
			}
			defer host.Close()
			// A controller answers when it has done what it is at.
			state, err := api.NewClient(controller.RuntimeDir()).State(cmd.Context())
			if err != nil && !errors.Is(err, api.ErrNotRunning) {
				return err
			}
			status, err := host.Status(policy)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(statusJSON{state, status, notesToJSON(status.Notes)})
			}
			c.printController(state)
			c.printStatus(status, rules)
			c.printNotes(status.Notes)
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().BoolVar(&rules, "rules", true, "print the rules with the packets and calls that each decided")
	return cmd
}

// statusJSON is what -o json prints.
type statusJSON struct {
	Controller *controller.State `json:"controller"` // null if none runs
	*controller.Status
	Notes []noteJSON `json:"notes,omitempty"`
}

// printController says who keeps the policy, and how that goes.
func (c *cli) printController(s *controller.State) {
	if s == nil {
		fmt.Fprintln(c.out, "controller: none runs; this is what the kernel holds")
		return
	}
	fmt.Fprintf(c.out, "%s pid %d, since %s\n", c.bold("controller:"), s.PID, clock(s.Started))
	fmt.Fprintf(c.out, "  policy of %s, in force since %s\n", strings.Join(s.Policy.Paths, ", "), clock(s.Policy.Loaded))
	if b := s.Policy.Broken; b != nil {
		fmt.Fprintf(c.out, "  %s since %s, the last good policy stays in force\n", c.red("the files are broken"), clock(b.Since))
		if b.Error != "" {
			fmt.Fprintf(c.out, "    %s\n", b.Error)
		}
		for _, p := range b.Problems {
			fmt.Fprintf(c.out, "    %s\n", p)
		}
	}
	if f := s.Failing; f != nil {
		fmt.Fprintf(c.out, "  %s since %s: %s\n", c.red("it can't reconcile"), clock(f.Since), f.Error)
	}
	for _, d := range s.Devices {
		if !d.Present {
			fmt.Fprintf(c.out, "  %s\n", c.yellow("device namespace "+d.Name+" is not there"))
		}
		for _, m := range d.Missing {
			fmt.Fprintf(c.out, "  %s\n", c.yellow("missing: "+m.Namespace+", "+m.Member))
		}
	}
	if s.LastDrift != nil {
		fmt.Fprintf(c.out, "  drift repaired: %d, the last at %s\n", s.Drift, clock(s.LastDrift.Time))
		for _, by := range s.LastDrift.By {
			fmt.Fprintf(c.out, "    by %s\n", by)
		}
	}
	if s.ResyncFound > 0 {
		fmt.Fprintf(c.out, "  %s\n", c.red(fmt.Sprintf("the safety resync found %s that nothing had announced: a bug, please report it", count(int(s.ResyncFound), "difference"))))
	}
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func (c *cli) printStatus(s *controller.Status, rules bool) {
	if len(s.Devices) == 0 {
		fmt.Fprintln(c.out, "nothing is enforced")
		return
	}
	if s.Syscalls.Enforced {
		fmt.Fprintf(c.out, "%s bind(2), connect(2) and sendto(2) are answered by the kernel itself (%s)\n", c.bold("syscall tier:"), s.Syscalls.Variant)
	} else {
		fmt.Fprintf(c.out, "%s %s; packets enforce alone: `sockns status -f` says which rules lose what\n", c.bold("syscall tier:"), c.yellow(s.Syscalls.Why))
	}
	for _, d := range s.Devices {
		fmt.Fprintf(c.out, "%s (%s, %s unmanaged)\n", c.bold("device namespace "+d.Name),
			count(len(d.Namespaces), "socket namespace"), count(d.Unmanaged, "socket"))
		for _, n := range d.Namespaces {
			fmt.Fprintf(c.out, "  %s: %s\n", c.bold(n.Name), count(n.Sockets, "socket"))
			for _, m := range n.Members {
				state := ""
				if !m.Current {
					state = c.red(" (stale: apply again)")
				}
				fmt.Fprintf(c.out, "    member %s%s\n", m.Cgroup, state)
			}
			for _, m := range n.Missing {
				fmt.Fprintf(c.out, "    %s\n", c.yellow("missing: "+m))
			}
			if n.Elsewhere > 0 {
				fmt.Fprintf(c.out, "    %s\n", c.yellow(fmt.Sprintf("%d of its processes are", n.Elsewhere)+" in another network namespace: not covered there"))
			}
			c.printCounts(&n.Counts, rules)
		}
	}
}

// printCounts says what the rules decided, and what those in audit would have refused.
func (c *cli) printCounts(n *controller.Counts, rules bool) {
	if !n.AuditSince.IsZero() && n.CountedUnder == "" {
		var packets, calls uint64
		for _, r := range n.Rules {
			if r.Outcome == compiler.Audited {
				packets, calls = packets+r.Packets, calls+r.Calls
			}
		}
		fmt.Fprintf(c.out, "    %s\n", c.yellow(fmt.Sprintf("in audit since %s: enforcing would have refused %s, %s",
			clock(n.AuditSince), count(int(packets), "packet"), count(int(calls), "call"))))
	}
	if n.CountedUnder != "" {
		fmt.Fprintf(c.out, "    its packets are counted under %s\n", c.bold(n.CountedUnder))
	}
	if !rules || len(n.Rules) == 0 {
		return
	}
	fmt.Fprintf(c.out, "    %8s %8s  %-12s  %s\n", "packets", "calls", "", "rule")
	for _, r := range n.Rules {
		verb := fmt.Sprintf("%-12s", outcomeVerbs[r.Outcome])
		switch {
		case r.Packets+r.Calls == 0: // nothing to look at
		case r.Outcome == compiler.Refused:
			verb = c.red(verb)
		case r.Outcome == compiler.Audited:
			verb = c.yellow(verb)
		}
		fmt.Fprintf(c.out, "    %8d %8d  %s  %s\n", r.Packets, r.Calls, verb, r.Text)
	}
}

var outcomeVerbs = map[compiler.Outcome]string{
	compiler.Allowed: "allowed", compiler.Refused: "refused", compiler.Audited: "would refuse",
}
