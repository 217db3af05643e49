package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/service"
)

func (c *cli) runCommand() *cobra.Command {
	var files []string
	var resync, confirm time.Duration
	var metricsListen string
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "run -f PATH...",
		Short: "Keep the kernel equal to the policy: the controller",
		Long: `Run applies the policy and keeps it in force: when its files change, when
cgroups come, go and come back, when network namespaces appear, and when somebody
else changes the tables. A file that breaks is logged, and the last good policy
stays.

Stopping it changes nothing in the kernel; the next start takes over without a
gap. While it runs, apply and delete are refused. SIGHUP and "sockns reload" have
it read its files again; "sockns status" and "sockns events" ask it what it does,
over a socket in its runtime directory.

With --confirm an edit of the files goes back unless "sockns confirm" follows in
time, also if the controller dies meanwhile. What the files hold at the start is
in force at once.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return fmt.Errorf("no policy: name a file or a directory with -f")
			}
			log, err := c.logger(logs)
			if err != nil {
				return err
			}
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			return service.Run(ctx, service.Options{
				Paths: files, Resync: resync, Confirm: confirm, Guard: c.startGuard,
				Log: log, Version: version(), MetricsListen: metricsListen,
			})
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().DurationVar(&resync, "resync", controller.DefaultResync, "compare everything this often, although nothing said that it changed")
	cmd.Flags().DurationVar(&confirm, "confirm", 0, "bring the former policy back unless sockns confirm follows within this `time` after an edit, as 60s")
	cmd.Flags().StringVar(&metricsListen, "metrics-listen", "", "serve metrics at this loopback `address` and port too, as 127.0.0.1:9469")
	logs.add(cmd)
	return cmd
}
