package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/nft"
)

func (c *cli) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f PATH...",
		Short: "Unified diff of the kernel's tables against the compiled ones",
		Long: `Diff prints how the tables in the kernel differ from what the policy compiles
to, as a unified diff of nft text. The exit status is 0 if they are the same, 1
if they differ, and 2 on an error.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			same, err := c.diff(files)
			switch {
			case err != nil:
				return exitStatus{code: 2, err: quiet(err)}
			case !same:
				return exitStatus{code: 1}
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	return cmd
}

// quiet drops an error whose message was printed.
func quiet(err error) error {
	var s exitStatus
	if errors.As(err, &s) {
		return s.err
	}
	return err
}

func (c *cli) diff(files []string) (same bool, err error) {
	loaded, err := c.load(files)
	if err != nil {
		return false, err
	}
	host, err := controller.OpenHost()
	if err != nil {
		return false, err
	}
	defer host.Close()
	plan, err := host.Plan(loaded.Policy)
	if err != nil {
		return false, err
	}
	type deviceDiff struct {
		Device string `json:"deviceNamespace"`
		Diff   string `json:"diff"`
	}
	diffs := []deviceDiff{}
	opts := host.TextOptions()
	for _, d := range plan.Devices {
		if d.Change.Empty() {
			continue
		}
		text := diff.Diff("kernel/"+d.Name, comparable(d.Old, opts), "policy/"+d.Name, comparable(d.New, opts))
		diffs = append(diffs, deviceDiff{d.Name, string(text)})
	}
	if c.output == "json" {
		return len(diffs) == 0, c.json(diffs)
	}
	for _, d := range diffs {
		fmt.Fprint(c.out, d.Diff)
	}
	return len(diffs) == 0, nil
}

// comparable prints a table so that equal tables print alike.
func comparable(t *nft.Table, opts nft.TextOptions) []byte {
	if t == nil {
		return nil
	}
	sorted := *t
	sorted.Sets = slices.Clone(t.Sets)
	slices.SortFunc(sorted.Sets, func(a, b nft.Set) int { return strings.Compare(a.Name, b.Name) })
	for i := range sorted.Sets {
		s := &sorted.Sets[i]
		s.Notes = nil
		if s.Dynamic {
			s.Elements = nil
		}
		s.Elements = slices.Clone(s.Elements)
		slices.SortFunc(s.Elements, func(a, b nft.Element) int { return slices.CompareFunc(a.Key, b.Key, compareValues) })
	}
	sorted.Chains = slices.Clone(t.Chains)
	slices.SortFunc(sorted.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	return []byte(sorted.Text(opts))
}

func compareValues(a, b nft.Value) int {
	return cmp.Or(cmp.Compare(a.Num, b.Num), a.Addr.Compare(b.Addr))
}
