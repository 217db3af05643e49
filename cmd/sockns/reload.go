package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
)

func (c *cli) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the running controller read its policy files again",
		Long: `Reload has the running controller read its policy files again, and waits until
their policy is in force. It does so by itself when the files change; reload is
for file systems that do not say so, and for scripts that want to know the
outcome. If the files are broken, the last good policy stays in force and the
exit status is 1.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			broken, err := api.NewClient(controller.RuntimeDir()).Reload(cmd.Context())
			switch {
			case err != nil:
				return err
			case broken == nil:
				fmt.Fprintln(c.err, "in force")
				return nil
			case len(broken.Problems) == 0:
				return fmt.Errorf("%s; the last good policy stays in force", broken.Error)
			}
			for _, p := range broken.Problems {
				fmt.Fprintln(c.err, p)
			}
			return fmt.Errorf("the policy has errors; the last good policy stays in force")
		},
	}
}
