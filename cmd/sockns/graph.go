package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/graph"
	"github.com/sockns/sockns/graph/page"
)

func (c *cli) graphCommand() *cobra.Command {
	var files []string
	var all, oneSided, live bool
	var around []string
	cmd := &cobra.Command{
		Use:   "graph [-f PATH...] [--live]",
		Short: "Who may talk to whom, as a page to look at, DOT, Mermaid or JSON",
		Long: `Graph prints who may talk to whom under a policy: an edge for each pair of
ends with traffic that the connecting end's connect rules and the listening
end's accept rules both allow, and both rules' file:line. Nothing is touched, no
privilege is needed.

With --live the running controller adds how often something began on an edge, and
what was refused between two ends since it was started; the policy is the
controller's, unless -f names another. "At most" marks a count of a rule that is
about several edges.

The page (-o html) needs no network: search, filter and click in it. DOT and
Mermaid leave out edges that exist only because both ends allow anybody, unless
--all is given; the page and JSON always have them.`,
		Example: `  sockns graph -f policy.yaml -o html > graph.html
  sockns graph --live -o html > graph.html
  sockns graph -f policy.yaml -o dot | dot -Tsvg > graph.svg
  sockns graph -f policy.yaml -o mermaid --around web
  sockns graph -f policy.yaml -o json | jq '.edges[] | select(.to == "db") | .from'`,
		Args:        noArguments,
		Annotations: map[string]string{outputsKey: "dot,mermaid,html,json"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := c.graph(cmd.Context(), files, live)
			if err != nil {
				return err
			}
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
	cmd.Flags().BoolVar(&live, "live", false, "with what the running controller counted and refused")
	cmd.Flags().BoolVar(&all, "all", false, "in DOT and Mermaid too, edges between ends that allow anybody")
	cmd.Flags().BoolVar(&oneSided, "one-sided", true, "show what one end allows by name and the other refuses")
	cmd.Flags().StringSliceVar(&around, "around", nil, "only these `nodes` and their neighbours")
	return cmd
}

// graph returns the graph of a policy, or of the one that is in force.
func (c *cli) graph(ctx context.Context, files []string, live bool) (*graph.Graph, error) {
	if live {
		return c.liveGraph(ctx, files)
	}
	loaded, err := c.load(files)
	if err != nil {
		return nil, err
	}
	return graph.Build(loaded.Policy), nil
}
