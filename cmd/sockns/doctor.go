package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
)

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "What this kernel can do for sockns, and what each missing feature costs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			features := controller.Examine()
			fit := true
			for _, f := range features {
				fit = fit && (f.OK || !f.Required)
			}
			if c.output == "json" {
				if err := c.json(features); err != nil {
					return err
				}
			} else {
				c.printFeatures(features)
			}
			if !fit {
				return exitStatus{code: 1}
			}
			return nil
		},
	}
}

func (c *cli) printFeatures(features []controller.Feature) {
	for _, f := range features {
		mark := c.green("yes")
		if !f.OK {
			mark = c.yellow("no ")
			if f.Required {
				mark = c.red("NO ")
			}
		}
		fmt.Fprintf(c.out, "%s  %s", mark, f.Name)
		if f.Detail != "" {
			fmt.Fprintf(c.out, ": %s", f.Detail)
		}
		fmt.Fprintln(c.out)
		if !f.OK {
			fmt.Fprintf(c.out, "     without it: %s\n", f.Without)
		}
	}
}
