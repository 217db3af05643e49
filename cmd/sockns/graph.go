package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/graph"
	"github.com/sockns/sockns/graph/page"
)

func (c *cli) graphCommand() *cobra.Command {
	var files []string
	var all, oneSided bool
	var around []string
	cmd := &cobra.Command{
		Use:   "graph -f PATH...",
		Short: "Who may talk to whom, as a page to look at, DOT, Mermaid or JSON",
		Long: `Graph prints who may talk to whom under a policy: an edge for each pair of
ends with traffic that the connecting end's connect rules and the listening
end's accept rules both allow, and both rules' file:line. Nothing is touched, no
privilege is needed.

The page (-o html) needs no network: search, filter and click in it. DOT and
Mermaid leave out edges that exist only because both ends allow anybody, unless
--all is given; the page and JSON always have them.`,
		Example: `  sockns graph -f policy.yaml -o html > graph.html
  sockns graph -f policy.yaml -o dot | dot -Tsvg > graph.svg
  sockns graph -f policy.yaml -o mermaid --around web
  sockns graph -f policy.yaml -o json | jq '.edges[] | select(.to == "db") | .from'`,
		Args:        noArguments,
		Annotations: map[string]string{outputsKey: "dot,mermaid,html,json"},
		RunE: func(*cobra.Command, []string) error {
			loaded, err := c.load(files)
			if err != nil {
				return err
			}
			g := graph.Build(loaded.Policy)
			for _, id := range around {
				if !g.Has(id) {
					return fmt.Errorf("--around %s: the graph has no such node", id)
				}
			}
			everything := all || c.output == "html" || c.output == "json"
			g = g.Select(graph.Selection{Unnamed: everything, OneSided: oneSided, Around: around})
			switch c.output {
			case "json":
				return c.json(g)
			case "html":
				return page.Write(c.out, g)
			case "mermaid":
				_, err = fmt.Fprint(c.out, g.Mermaid())
			default:
				_, err = fmt.Fprint(c.out, g.DOT())
			}
			return err
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().BoolVar(&all, "all", false, "in DOT and Mermaid too, edges between ends that allow anybody")
	cmd.Flags().BoolVar(&oneSided, "one-sided", true, "show what one end allows by name and the other refuses")
	cmd.Flags().StringSliceVar(&around, "around", nil, "only these `nodes` and their neighbours")
	return cmd
}
