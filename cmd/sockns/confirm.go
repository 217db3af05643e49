package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
)

func (c *cli) confirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm",
		Short: "Keep a change that was made with --confirm",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := controller.Confirm(controller.RuntimeDir()); err != nil {
				return err
			}
			fmt.Fprintln(c.err, "confirmed")
			return nil
		},
	}
}

func (c *cli) rollbackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback",
		Short: "Take a change back that was made with --confirm, before its time is over",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := controller.TakeBack(controller.RuntimeDir()); err != nil {
				return err
			}
			lock, err := c.lock(cmd.Context())
			if errors.Is(err, controller.ErrOwned) {
				fmt.Fprintln(c.err, "the controller brings the former policy back")
				return nil
			}
			if err != nil {
				return err
			}
			defer lock.Release()
			host, err := controller.OpenHost()
			if err != nil {
				return err
			}
			defer host.Close()
			return uninterrupted(func() error { return c.settle(host) })
		},
	}
}

// guardCommand is what apply and run start and leave behind.
func (c *cli) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard",
		Short:  "Wait for a confirmation, and bring the former policy back without one",
		Hidden: true,
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.logger(logFlags{format: "text"})
			if err != nil {
				return err
			}
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			return controller.Guard(ctx, controller.RuntimeDir(), log)
		},
	}
}

func (c *cli) startGuard() error {
	return controller.StartGuard(filepath.Join(controller.RuntimeDir(), "guard.log"), "guard")
}

// settle brings back what was not confirmed in time.
func (c *cli) settle(host *controller.Host) error {
	p, err := host.Settle(controller.RuntimeDir())
	if err == nil && p != nil {
		fmt.Fprintf(c.err, "the change by %s was not confirmed: the former policy is back\n", p.By)
	}
	return err
}

// carryOut applies a plan, for good or until it is not confirmed.
func (c *cli) carryOut(host *controller.Host, plan *controller.Plan, window time.Duration) error {
	if window == 0 {
		if err := host.Apply(plan); err != nil {
			return err
		}
		fmt.Fprintln(c.err, "applied")
		return controller.Forget(controller.RuntimeDir())
	}
	by := fmt.Sprintf("apply with pid %d", os.Getpid())
	if err := host.ApplyPending(plan, controller.RuntimeDir(), by, window, c.startGuard); err != nil {
		return err
	}
	fmt.Fprintf(c.err, "applied; the former policy comes back in %s unless you say: sockns confirm\n", window)
	return nil
}
