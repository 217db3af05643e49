package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

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
With a policy, its members that do not exist are listed too.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
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
			status, err := host.Status(policy)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(status)
			}
			c.printStatus(status, rules)
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().BoolVar(&rules, "rules", true, "print the rules with the packets that each decided")
	return cmd
}

func (c *cli) printStatus(s *controller.Status, rules bool) {
	if len(s.Devices) == 0 {
		fmt.Fprintln(c.out, "nothing is enforced")
		return
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
			if !rules {
				continue
			}
			for _, r := range n.Rules {
				fmt.Fprintf(c.out, "    %8d  %s\n", r.Packets, strings.TrimSpace(r.Rule))
			}
			for _, r := range n.Calls {
				by := "its default"
				if r.Rule > 0 {
					by = fmt.Sprintf("rule %d", r.Rule)
				}
				fmt.Fprintf(c.out, "    %8d  calls refused by %s %s\n", r.Calls, r.Hook, by)
			}
		}
	}
}
