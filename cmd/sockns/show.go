package main

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
)

// showCosts prints what packets cost at worst.
func (c *cli) showCosts(prog *compiler.Program, device string) error {
	type costs struct {
		Device     string                   `json:"deviceNamespace"`
		Namespaces []compiler.NamespaceCost `json:"socketNamespaces"`
		Lists      []compiler.ListCost      `json:"lists"`
	}
	all := []costs{}
	for i := range prog.Devices {
		if d := &prog.Devices[i]; d.Table != nil && (device == "" || device == d.Name) {
			all = append(all, costs{d.Name, d.Costs(), d.Lists()})
		}
	}
	if c.output == "json" {
		return c.json(all)
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tNAMESPACE\tWHERE\tRULES\tLOOKUPS\tABOUT NS")
	for _, d := range all {
		for _, n := range d.Namespaces {
			for _, part := range []struct {
				where string
				cost  compiler.Cost
			}{{"connect", n.Connect}, {"local", n.Local}, {"accept", n.Accept}} {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\n", d.Device, n.Name, part.where, part.cost.Rules, part.cost.Lookups, part.cost.Nanoseconds)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, d := range all {
		for _, l := range d.Lists {
			fmt.Fprintf(c.out, "%s: set %s\n", d.Device, l)
		}
	}
	return nil
}

func (c *cli) showCommand() *cobra.Command {
	var files []string
	var device string
	var cost bool
	cmd := &cobra.Command{
		Use:   "show -f PATH...",
		Short: "Print the compiled tables as nft text",
		Long: `Show prints what a policy compiles to on this host, one table for each device
namespace. nft -c -f accepts the text; members that don't exist are comments.

With --cost it prints what the packet that goes the longest way through a
socket namespace's rules costs instead: rules that are looked at, lookups in sets
and maps, and an estimate in nanoseconds of a machine that sends a datagram over
lo in 600. "connect" is in output, not through lo; over lo it is "accept" of the
receiver and then "local" of the sender, both in input. Packets of a TCP
connection that exists cost one rule. A line follows for each long list of
addresses or ports that became a set, because that is cheaper than a rule for
each of its elements: what either costs a packet, and the kernel's memory.`,
		Args: noArguments,
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
			if cost {
				return c.showCosts(prog, device)
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
	cmd.Flags().BoolVar(&cost, "cost", false, "what a packet of each socket namespace costs at worst")
	cmd.Flags().StringVar(&device, "device", "", "only this device `namespace`")
	return cmd
}
