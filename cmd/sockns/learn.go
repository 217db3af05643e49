package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/learn"
	"github.com/sockns/sockns/model"
)

// learnFlags are the flags of learn.
type learnFlags struct {
	files     []string
	from      string
	limit     time.Duration
	before    bool
	enforce   bool
	write     bool
	prefixes  bool
	ephemeral bool
}

func (c *cli) learnCommand() *cobra.Command {
	var f learnFlags
	cmd := &cobra.Command{
		Use:   "learn NAMESPACE -f PATH...",
		Short: "Write the rules that a namespace's traffic needs, from what is refused",
		Long: `Learn adds to a namespace of a policy the fewest rules that allow what is
refused of its traffic, or would be in audit, and prints the file with them;
comments say how often and when it was seen. All else in the file stays as it
is. Rules that deny are somebody's will: what they refused is named, and stays
refused. Nothing is allowed that was not seen, unless --prefixes or
--ephemeral-ports asks for it.

It hears of the traffic from the running controller, from now on, for the time of
--for or until Ctrl-C; or takes what the controller remembers since it was
started (--remembered), or a file (--from).

The usual way: mode: audit, learn while the service does all that it does, read
the difference, and apply it.`,
		Example: `  sockns learn web -f policy.yaml --for 10m -o diff
  sockns learn web -f policy.yaml --enforce --write
  sockns learn web -f policy.yaml --remembered
  sockns watch -o json > seen.json
  sockns learn web -f policy.yaml --from seen.json`,
		Args:        oneArgument("socket namespace"),
		Annotations: map[string]string{outputsKey: "yaml,diff,json"},
		RunE:        func(cmd *cobra.Command, args []string) error { return c.learn(cmd.Context(), args[0], &f) },
	}
	fileFlag(cmd, &f.files)
	cmd.Flags().DurationVar(&f.limit, "for", 0, "how long to listen to the controller, as 10m; without it until Ctrl-C")
	cmd.Flags().StringVar(&f.from, "from", "", "`file` of decisions, as watch -o json writes them; - is standard input")
	cmd.Flags().BoolVar(&f.before, "remembered", false, "learn at once, from what the controller remembers since it was started")
	cmd.MarkFlagsMutuallyExclusive("for", "from", "remembered")
	cmd.Flags().BoolVar(&f.enforce, "enforce", false, "end the namespace's audit: mode: enforce")
	cmd.Flags().BoolVarP(&f.write, "write", "w", false, "write the file instead of printing it")
	cmd.Flags().BoolVar(&f.prefixes, "prefixes", false, fmt.Sprintf("where %d addresses of a /24 or /64 were seen, allow their prefix", learn.PrefixMin))
	cmd.Flags().BoolVar(&f.ephemeral, "ephemeral-ports", false, "where the kernel picked a server's port, allow all that it picks from")
	return cmd
}

func (c *cli) learn(ctx context.Context, namespace string, f *learnFlags) error {
	if f.limit < 0 {
		return fmt.Errorf("--for %s: a time that is over; as 10m", f.limit)
	}
	loaded, err := c.load(f.files)
	if err != nil {
		return err
	}
	n := loaded.Policy.Namespace(namespace)
	if n == nil || n.Name != namespace {
		return fmt.Errorf("the policy has no socket namespace %s: declare it with its members and mode: audit", namespace)
	}
	if _, err := (&learn.Learned{Namespace: namespace}).Patch(loaded.Files, f.enforce); err != nil && c.output != "json" {
		return err // before anything was learned
	}
	collection := &learn.Collection{Namespace: namespace}
	switch {
	case f.from != "":
		err = c.decisions(f.from, collection)
	case f.before:
		err = c.remembered(ctx, namespace, collection)
	default:
		err = c.listen(ctx, n, f.limit, collection)
	}
	if err != nil {
		return err
	}
	if f.write {
		unlock, err := lockDirectory(filepath.Dir(n.Pos.File))
		if err != nil {
			return fmt.Errorf("--write: %w", err)
		}
		defer unlock()
	}
	loaded, stale := reloaded(loaded, f.files, namespace)
	learned, err := learn.Rules(loaded.Policy, namespace, collection.Flows(), learn.Options{
		Prefixes: f.prefixes, EphemeralPorts: ephemeralPorts(loaded.Policy.Device(n.Device)), WholeEphemeral: f.ephemeral,
	})
	if err != nil {
		return err
	}
	c.printLeft(collection, learned)
	if c.output == "json" {
		return c.json(learnedToJSON(collection, learned))
	}
	patched, err := learned.Patch(loaded.Files, f.enforce)
	if err != nil {
		return err
	}
	switch {
	case f.write && stale == nil:
		return replaceFile(patched)
	case c.output == "diff":
		_, err = c.out.Write(diff.Diff(patched.Name, original(loaded.Files, patched.Name), patched.Name, patched.Data))
	default:
		_, err = c.out.Write(patched.Data)
	}
	return errors.Join(stale, err)
}

// decisions fills a collection from a file.
func (c *cli) decisions(name string, into *learn.Collection) error {
	in := c.in
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = io.Reader(file)
	}
	if err := into.Read(in); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// ephemeralPorts is what a device namespace picks ports from, if it can be
// looked into.
func ephemeralPorts(d *model.DeviceNamespace) model.PortRange {
	ns, err := device.Open(*d)
	if err != nil {
		return learn.DefaultEphemeralPorts
	}
	defer ns.Close()
	if first, last, err := ns.EphemeralPorts(); err == nil {
		return model.PortRange{First: first, Last: last}
	}
	return learn.DefaultEphemeralPorts
}

// learnedJSON is what was learned as -o json prints it.
type learnedJSON struct {
	Namespace string            `json:"socketNamespace"`
	Rules     []learnedRuleJSON `json:"rules"`
	Refused   []refusedJSON     `json:"staysRefused"`
	Untold    uint64            `json:"untold"` // decisions that were not told one by one
	Shared    uint64            `json:"shared"` // decisions of one of several namespaces
}

type learnedRuleJSON struct {
	Hook  string    `json:"hook"`
	Rule  string    `json:"rule"`
	Count uint64    `json:"count"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	Note  string    `json:"note,omitempty"`
}

type refusedJSON struct {
	Flow string `json:"flow"`
	At   string `json:"at"`
}

func learnedToJSON(c *learn.Collection, l *learn.Learned) learnedJSON {
	out := learnedJSON{Namespace: l.Namespace, Rules: []learnedRuleJSON{}, Refused: []refusedJSON{}, Untold: c.Untold, Shared: c.Shared}
	for _, r := range l.Rules {
		out.Rules = append(out.Rules, learnedRuleJSON{r.Hook.String(), r.String(), r.Count, r.First, r.Last, r.Note})
	}
	for _, r := range l.Refused {
		out.Refused = append(out.Refused, refusedJSON{r.Flow.String(), r.Rule.Pos.String()})
	}
	return out
}

// printLeft says what the rules do not allow, and what is not known.
func (c *cli) printLeft(collection *learn.Collection, l *learn.Learned) {
	for _, r := range l.Refused {
		fmt.Fprintf(c.err, "stays refused: %s, by the rule at %s\n", r.Flow, r.Rule.Pos)
	}
	for _, f := range l.Answers {
		fmt.Fprintf(c.err, "needs no rule: %s answers what is allowed\n", f)
	}
	if collection.Shared > 0 {
		fmt.Fprintf(c.err, "%s\n", c.yellow(fmt.Sprintf(
			"left aside: %s of one of several namespaces with the same rules, %s among them; the kernel does not tell of which", count(int(collection.Shared), "decision"), l.Namespace)))
	}
	if collection.Untold > 0 {
		fmt.Fprintf(c.err, "%s\n", c.yellow(fmt.Sprintf(
			"not told one by one: %s; there may be traffic that these rules still refuse: learn again with them", count(int(collection.Untold), "decision"))))
	}
	fmt.Fprintf(c.err, "%s learned, %s allowed already\n", count(len(l.Rules), "rule"), count(l.Allowed, "flow"))
}
