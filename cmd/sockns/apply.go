package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
)

// lockTimeout is how long a command waits for another that changes things.
const lockTimeout = 30 * time.Second

func (c *cli) applyCommand() *cobra.Command {
	var files []string
	var approve, revoke, allowLockout bool
	var confirm time.Duration
	cmd := &cobra.Command{
		Use:   "apply -f PATH... | apply PLANFILE",
		Short: "Make the kernel enforce a policy: all of it or nothing",
		Long: `Apply shows the plan, asks on a terminal, and makes the kernel enforce the
policy, in all device namespaces or in none. No packet sees half of a change.

A saved plan (plan --out) is applied only if it would still do exactly what it
said. Connections that are open stay open, unless --revoke closes those that
the new policy refuses, and the listeners that it would not let bind.

The plan names the connections and bound sockets that the policy refuses, and
which of them can't be closed (UDP). If your connection is among them, --auto-approve needs --confirm or --allow-lockout beside it.

With --confirm the former policy comes back, all of it, unless "sockns confirm"
follows in time: also if this command, the terminal or the connection dies.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if confirm < 0 || confirm > 0 && revoke {
				return fmt.Errorf("--confirm takes a time, and does not go with --revoke: connections that are closed do not come back")
			}
			if len(args) > 1 || (len(args) == 0) == (len(files) == 0) {
				return fmt.Errorf("name either a policy with -f or one saved plan")
			}
			lock, err := c.lock(cmd.Context())
			if err != nil {
				return err
			}
			defer lock.Release()
			host, err := controller.OpenHost()
			if err != nil {
				return err
			}
			defer host.Close()
			if err := uninterrupted(func() error { return c.settle(host) }); err != nil {
				return err
			}
			plan, err := c.planFor(host, files, args)
			if err != nil {
				return err
			}
			refused, err := c.refused(host, plan, revoke)
			if err != nil {
				return err
			}
			if err := c.printPlan(plan, alongside{refused: refused, revoke: revoke}); err != nil {
				return err
			}
			if plan.Changes() {
				question := "Apply this?"
				if own(refused) {
					if approve && confirm == 0 && !allowLockout {
						return errors.New("nothing was changed: the policy refuses the connection that you came through; say --confirm 60s, or --allow-lockout")
					}
					question = "The policy refuses the connection that you came through. Apply this?"
				}
				if err := c.confirm(approve, question); err != nil {
					return err
				}
				if err := uninterrupted(func() error { return c.carryOut(host, plan, confirm) }); err != nil {
					return err
				}
			}
			if revoke {
				return c.revoke(host, plan)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().BoolVar(&approve, "auto-approve", false, "do not ask")
	cmd.Flags().BoolVar(&allowLockout, "allow-lockout", false, "with --auto-approve: also if the policy refuses the connection that you came through")
	cmd.Flags().DurationVar(&confirm, "confirm", 0, "bring the former policy back unless sockns confirm follows within this `time`, as 60s")
	cmd.Flags().BoolVar(&revoke, "revoke", false, "close open connections and listeners that the policy refuses")
	return cmd
}

func (c *cli) planFor(host *controller.Host, files, args []string) (*controller.Plan, error) {
	if len(args) == 1 {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		_, plan, err := host.Resume(f)
		return plan, err
	}
	loaded, err := c.load(files)
	if err != nil {
		return nil, err
	}
	return c.planLoaded(host, loaded)
}

// revoke closes what the applied policy refuses and says so.
func (c *cli) revoke(host *controller.Host, plan *controller.Plan) error {
	closed, err := host.Revoke(plan.Policy, plan.Facts)
	for _, s := range closed {
		fmt.Fprintln(c.err, "closed:", s)
	}
	return err
}

// lock waits for whoever changes things at this moment.
func (c *cli) lock(ctx context.Context) (*controller.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	return controller.Acquire(ctx, controller.RuntimeDir(), controller.RoleCommand, func(holder string) {
		fmt.Fprintf(c.err, "waiting: %s is changing the policy\n", holder)
	})
}

// confirm asks on a terminal; elsewhere somebody has to have said yes.
func (c *cli) confirm(approved bool, question string) error {
	if approved {
		return nil
	}
	if !c.terminal {
		return fmt.Errorf("nothing was changed: there is no terminal to ask on; say --auto-approve")
	}
	fmt.Fprintf(c.err, "%s Only 'yes' is a yes: ", question)
	answer, _ := bufio.NewReader(c.in).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return fmt.Errorf("nothing was changed")
	}
	return nil
}
