package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// logFlags are the flags of commands that run for long.
type logFlags struct {
	format string
	level  slog.Level
}

func (l *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.format, "log-format", "auto", "text, json, or auto: text on a terminal, else json")
	cmd.Flags().TextVar(&l.level, "log-level", slog.LevelInfo, "debug (each cgroup that comes or goes too), info, warn or error")
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"auto", "text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
}

// logger writes to stderr.
func (c *cli) logger(l logFlags) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: l.level}
	format := l.format
	if format == "auto" {
		format = "json"
		if term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("JOURNAL_STREAM") == "" {
			format = "text"
		}
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(c.err, o)), nil
	case "text":
		return slog.New(slog.NewTextHandler(c.err, o)), nil
	}
	return nil, fmt.Errorf("--log-format %s: allowed are auto, text and json", l.format)
}
