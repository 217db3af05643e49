package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
)

func (c *cli) deleteCommand() *cobra.Command {
	var approve bool
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Remove all that sockns made, in every device namespace",
		Long: `Delete removes all that this sockns made, in every device namespace. A change
that waits to be confirmed ends with it, and the policy before it does not come
back.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
			plan, err := host.Plan(nil)
			if err != nil {
				return err
			}
			if err := c.printPlan(plan, alongside{}); err != nil {
				return err
			}
			if !plan.Changes() {
				return controller.Forget(controller.RuntimeDir())
			}
			if err := c.confirm(approve, "Remove this? Everything that it refused will be possible again."); err != nil {
				return err
			}
			if err := uninterrupted(func() error { return host.Apply(plan) }); err != nil {
				return err
			}
			fmt.Fprintln(c.err, "removed")
			return controller.Forget(controller.RuntimeDir())
		},
	}
	cmd.Flags().BoolVar(&approve, "auto-approve", false, "do not ask")
	return cmd
}
