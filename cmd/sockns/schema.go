package main

import (
	"github.com/spf13/cobra"

	"github.com/sockns/sockns/model"
)

func (c *cli) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the policy language, for editors",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := c.out.Write(model.Schema())
			return err
		},
	}
}
