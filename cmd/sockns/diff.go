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
	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/nft"
)

func (c *cli) diffCommand() *cobra.Command {
	var files []string
	var semantic bool
	cmd := &cobra.Command{
		Use:         "diff -f PATH... | diff --semantic OLD NEW",
		Short:       "Unified diff of the kernel's tables against the compiled ones, or two policies by what they mean",
		Annotations: map[string]string{errorStatusKey: "2"},
		Long: `Diff prints how the tables in the kernel differ from what the policy compiles
to, as a unified diff of nft text.

With --semantic it compares two policies, files or directories, by what they
mean: which flows become allowed (+) or refused (-), or get another errno (~).
What reads differently and means the same prints nothing. No privilege is needed.

The exit status is 0 if they are the same, 1 if they differ, and 2 on an error.`,
		Example: `  sockns diff -f policy.yaml
  sockns diff --semantic /etc/sockns policy.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case semantic && (len(args) != 2 || len(files) > 0):
				return errors.New("--semantic compares two policies: name the old one and the new one, files or directories")
			case !semantic && len(args) > 0:
				return fmt.Errorf("%q: name the policy with -f, or compare two with --semantic", args[0])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var same bool
			var err error
			if semantic {
				same, err = c.diffSemantic(args[0], args[1])
			} else {
				same, err = c.diff(files)
			}
			switch {
			case err != nil:
				return err
			case !same:
				return exitStatus(1)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().BoolVar(&semantic, "semantic", false, "compare what two policies mean")
	return cmd
}

func (c *cli) diffSemantic(before, after string) (same bool, err error) {
	first, err := c.load([]string{before})
	if err != nil {
		return false, err
	}
	last, err := c.load([]string{after})
	if err != nil {
		return false, err
	}
	changes := flowset.Compare(first.Policy, last.Policy)
	if c.output == "json" {
		return len(changes) == 0, c.json(changes)
	}
	c.printFlows(changes, "")
	return len(changes) == 0, nil
}

// printFlows prints what becomes of flows, one line for each set of them.
func (c *cli) printFlows(changes []flowset.Change, indent string) {
	for _, change := range changes {
		sign := change.Sign()
		switch sign {
		case "+":
			sign = c.green(sign)
		case "-":
			sign = c.red(sign)
		default:
			sign = c.yellow(sign)
		}
		fmt.Fprintf(c.out, "%s%s %s\n", indent, sign, change)
	}
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
