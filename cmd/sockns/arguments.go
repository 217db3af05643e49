package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// noArguments is for commands that take flags alone. A policy is named with -f,
// which is forgotten easily.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.Flags().Lookup("file") != nil:
		return fmt.Errorf("%s: a policy is named with -f: %s -f %[1]s", args[0], cmd.CommandPath())
	}
	return fmt.Errorf("%s: %s takes no arguments", args[0], cmd.CommandPath())
}

// oneArgument is for commands that are about one thing.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return fmt.Errorf("%d arguments: name one %s, as in: %s", len(args), what, cmd.UseLine())
	}
}
