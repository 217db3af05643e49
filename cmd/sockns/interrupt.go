package main

import (
	"context"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Most commands die of SIGINT and SIGTERM, as is expected of one that waits for
// its input or an answer. These two are for those that must not.

// untilInterrupted returns a context that ends with SIGINT or SIGTERM, for
// commands that go on until then.
func untilInterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
}

// uninterrupted does a change to the end whatever signal comes, the terminal's
// end too: one that stops half way has changed some device namespaces.
func uninterrupted(change func() error) error {
	_, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	return change()
}
