package main

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
)

func (c *cli) runCommand() *cobra.Command {
	var files []string
	var resync, confirm time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run -f PATH...",
		Short: "Keep the kernel equal to the policy: the controller",
		Long: `Run applies the policy and keeps it in force: when its files change, when
cgroups come, go and come back, when network namespaces appear, and when somebody
else changes the tables. A file that breaks is logged, and the last good policy
stays.

Stopping it changes nothing in the kernel; the next start takes over without a
gap. While it runs, apply and delete are refused.

With --confirm an edit of the files goes back unless "sockns confirm" follows in
time, also if the controller dies meanwhile. What the files hold at the start is
in force at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return fmt.Errorf("no policy: name a file or a directory with -f")
			}
			lock, err := controller.Acquire(cmd.Context(), controller.RuntimeDir(), controller.RoleController, func(holder string) {
				fmt.Fprintf(c.err, "waiting: %s is changing the policy\n", holder)
			})
			if err != nil {
				return err
			}
			defer lock.Release()
			host, err := controller.OpenHost()
			if err != nil {
				return err
			}
			defer host.Close()
			return controller.NewReconciler(host, controller.Options{
				Paths: files, Resync: resync, Tell: tell(c.logger(verbose)), Confirm: confirm, Guard: c.startGuard,
			}).Run(cmd.Context())
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().DurationVar(&resync, "resync", controller.DefaultResync, "compare everything this often, although nothing said that it changed")
	cmd.Flags().DurationVar(&confirm, "confirm", 0, "bring the former policy back unless sockns confirm follows within this `time` after an edit, as 60s")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log each cgroup that comes or goes")
	return cmd
}

// tell logs events, and tells systemd when the policy is enforced.
func tell(log *slog.Logger) func(events.Event) {
	return func(e events.Event) {
		e.LogTo(log)
		if e.Kind == events.Started {
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		}
	}
}

// logger writes text on a terminal and JSON for a service manager.
func (c *cli) logger(verbose bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	if c.output == "json" || os.Getenv("INVOCATION_ID") != "" {
		return slog.New(slog.NewJSONHandler(c.err, o))
	}
	return slog.New(slog.NewTextHandler(c.err, o))
}
