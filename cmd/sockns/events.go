package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
)

func (c *cli) eventsCommand() *cobra.Command {
	var kinds []string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Follow what the running controller does",
		Long: `Events prints what the running controller does from now on, until it is
interrupted or the controller ends: what was changed and why, who changed
nftables behind its back, policies loaded and broken, members that come and go.
With -o json each event is a line of JSON. docs/operations.md lists the kinds.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var wanted []events.Kind
			for _, k := range kinds {
				wanted = append(wanted, events.Kind(k))
			}
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			err := api.NewClient(controller.RuntimeDir()).Events(ctx, wanted, nil, c.printEvent)
			switch {
			case errors.Is(err, context.Canceled):
				return nil // the operator has seen enough
			case errors.Is(err, io.EOF):
				return fmt.Errorf("the controller has ended")
			}
			return err
		},
	}
	names := make([]string, len(events.Kinds))
	for i, k := range events.Kinds {
		names[i] = string(k)
	}
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only events of this `kind`; repeatable, or separated by commas")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *cli) printEvent(e events.Event) error {
	if c.output == "json" {
		line := json.NewEncoder(c.out)
		line.SetEscapeHTML(false)
		return line.Encode(e)
	}
	_, err := fmt.Fprintf(c.out, "%s %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e)
	return err
}
