package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
)

// cli is what the commands share: the streams and the flags of all.
type cli struct {
	in       io.Reader
	out, err io.Writer
	output   string // -o
	colour   bool
	terminal bool // in and out are a terminal: questions can be asked
}

func newCLI(in, out, err *os.File) *cli {
	tty := term.IsTerminal(int(out.Fd()))
	_, noColour := os.LookupEnv("NO_COLOR") // https://no-color.org
	return &cli{
		in: in, out: out, err: err,
		colour:   tty && !noColour && os.Getenv("TERM") != "dumb",
		terminal: tty && term.IsTerminal(int(in.Fd())),
	}
}

func (c *cli) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "sockns",
		Short: "Network socket namespaces: who may bind, connect and accept on which local address",
		Long: `sockns keeps network socket namespaces: sets of sockets, named by cgroup,
systemd unit or template, with rules for what they may bind, connect to and
accept from, and the error they get when they may not. A policy is one or more
YAML files; docs/language.md explains it.

The usual way: validate, plan, apply. Nothing changes before apply says so.
Something was refused? sockns why NAMESPACE or PID says by which rule, and what
would allow it; sockns watch shows it as it happens.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "output: text or json; some commands have others")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return c.checkOutput(cmd) }
	_ = root.RegisterFlagCompletionFunc("output", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return outputs(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	root.AddCommand(
		c.validateCommand(), c.lintCommand(), c.explainCommand(), c.testCommand(),
		c.showCommand(), c.graphCommand(), c.learnCommand(), c.planCommand(), c.diffCommand(), c.applyCommand(),
		c.confirmCommand(), c.rollbackCommand(), c.guardCommand(),
		c.deleteCommand(), c.runCommand(), c.reloadCommand(), c.statusCommand(), c.watchCommand(), c.whyCommand(), c.eventsCommand(), c.doctorCommand(), c.schemaCommand(),
	)
	return root
}

// outputsKey is the annotation of a command that has other outputs than text
// and json: their names with commas between, the default first.
const outputsKey = "outputs"

func outputs(cmd *cobra.Command) []string {
	if own := cmd.Annotations[outputsKey]; own != "" {
		return strings.Split(own, ",")
	}
	return []string{"text", "json"}
}

// checkOutput checks -o, and without it takes the command's default.
func (c *cli) checkOutput(cmd *cobra.Command) error {
	allowed := outputs(cmd)
	if !cmd.Flags().Changed("output") {
		c.output = allowed[0]
	}
	if !slices.Contains(allowed, c.output) {
		last := len(allowed) - 1
		return fmt.Errorf("-o %s: allowed are %s and %s", c.output, strings.Join(allowed[:last], ", "), allowed[last])
	}
	return nil
}

// version is the module's, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// fileFlag adds the flag -f to a command.
func fileFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringSliceVarP(files, "file", "f", nil, "policy `file` or directory (its *.yaml and *.yml); - is standard input; repeatable")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
}

// load reads a policy and prints what is wrong with it. The error is
// errSaid if all was printed.
func (c *cli) load(files []string) (*controller.Loaded, error) {
	if len(files) == 0 {
		return nil, fmt.Errorf("no policy: name a file or a directory with -f")
	}
	l, err := controller.Load(files)
	if err != nil {
		return nil, err
	}
	c.warn(l.Diagnostics)
	if l.Policy == nil {
		return nil, errSaid
	}
	return l, nil
}

// warn prints diagnostics.
func (c *cli) warn(list model.Diagnostics) {
	for _, d := range list {
		fmt.Fprintln(c.err, d)
	}
}

// json prints a value as indented JSON.
func (c *cli) json(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (c *cli) paint(code, s string) string {
	if !c.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (c *cli) red(s string) string    { return c.paint("31", s) }
func (c *cli) green(s string) string  { return c.paint("32", s) }
func (c *cli) yellow(s string) string { return c.paint("33", s) }
func (c *cli) bold(s string) string   { return c.paint("1", s) }
