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
		Long: `Doctor tries each feature of the kernel that sockns uses, in a network
namespace of its own, and lists the ways around bind(2) and connect(2) with who
closes each. It exits with 1 if something is missing without which nothing can
be enforced.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			features := controller.Examine()
			fit := true
			for _, f := range features {
				fit = fit && (f.OK || !f.Required)
			}
			if c.output == "json" {
				if err := c.json(examinationJSON{features, controller.Gaps}); err != nil {
					return err
				}
			} else {
				c.printFeatures(features)
				c.printGaps(controller.Gaps)
			}
			if !fit {
				return exitStatus(1)
			}
			return nil
		},
	}
}

type examinationJSON struct {
	Features []controller.Feature `json:"features"`
	Gaps     []controller.Gap     `json:"gaps"`
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

func (c *cli) printGaps(gaps []controller.Gap) {
	fmt.Fprintln(c.out, c.bold("not seen by bind(2) and connect(2), and who closes it"))
	for _, g := range gaps {
		fmt.Fprintf(c.out, "     %s: %s\n", g.Name, g.ClosedBy)
	}
}
