package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
)

func (c *cli) showCommand() *cobra.Command {
	var files []string
	var device string
	cmd := &cobra.Command{
		Use:   "show -f PATH...",
		Short: "Print the compiled tables as nft text",
		Long: `Show prints what a policy compiles to on this host, one table for each device
namespace. nft -c -f accepts the text; members that don't exist are comments.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			loaded, err := c.load(files)
			if err != nil {
				return err
			}
			host, err := controller.OpenHost()
			if err != nil {
				return err
			}
			defer host.Close()
			prog, err := host.Compile(loaded.Policy)
			if err != nil {
				return err
			}
			if device != "" && !slices.ContainsFunc(prog.Devices, func(d compiler.Device) bool { return d.Name == device }) {
				return fmt.Errorf("--device %s: the policy has no such device namespace", device)
			}
			type table struct {
				Device string `json:"deviceNamespace"`
				Text   string `json:"text"`
			}
			tables := []table{}
			opts := host.TextOptions()
			for _, d := range prog.Devices {
				if d.Table != nil && (device == "" || device == d.Name) {
					tables = append(tables, table{d.Name, d.Table.Text(opts)})
				}
			}
			if c.output == "json" {
				return c.json(tables)
			}
			for _, t := range tables {
				fmt.Fprintf(c.out, "# device namespace %s\n%s", t.Device, t.Text)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().StringVar(&device, "device", "", "only this device `namespace`")
	return cmd
}
