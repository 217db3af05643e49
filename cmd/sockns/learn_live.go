package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/learn"
	"github.com/sockns/sockns/model"
)

const (
	// learnSettle is how long is listened on after the end, for what had
	// happened and was not told yet: packets are held a moment, and what a flood
	// hid is counted every two seconds.
	learnSettle = 2500 * time.Millisecond
	// learnRetry is how often a controller that ended is looked for.
	learnRetry = 500 * time.Millisecond
)

// listen fills a collection from what the running controller tells from now
// on, until the time is over (0: never) or ctx is done.
func (c *cli) listen(ctx context.Context, n *model.SocketNamespace, limit time.Duration, into *learn.Collection) error {
	client := api.NewClient(controller.RuntimeDir())
	if err := knows(ctx, client, n.Name); err != nil {
		return err
	}
	ctx, caught := untilInterrupted(ctx)
	defer caught()
	ctx, heed := untilInterrupted(ctx)
	defer heed()
	ends := "until Ctrl-C"
	if limit > 0 {
		ends = "for " + limit.String() + "; Ctrl-C ends it early"
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if n.Mode != model.Audit {
		fmt.Fprintln(c.err, c.yellow(n.Name+" is not in audit: an application that is refused stops there, and what it would have done next is not learned"))
	}
	fmt.Fprintf(c.err, "learning what %s does, %s\n", n.Name, ends)
	hearing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		heed() // who interrupts again does not want to wait
		time.AfterFunc(learnSettle, stop)
	})()
	for {
		err := client.Events(hearing, []events.Kind{events.Decision, events.Lost}, nil, func(e events.Event) error {
			known := len(into.Flows())
			if err := into.Add(e); err != nil {
				return err
			}
			for _, f := range into.Flows()[known:] {
				fmt.Fprintf(c.err, "seen: %s\n", f)
			}
			return nil
		})
		switch {
		case hearing.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			fmt.Fprintln(c.err, c.yellow("the controller has ended: what happens until it runs again is not learned"))
		case !errors.Is(err, api.ErrNotRunning):
			return err
		}
		select {
		case <-time.After(learnRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// remembered fills a collection from what the running controller remembers.
func (c *cli) remembered(ctx context.Context, namespace string, into *learn.Collection) error {
	client := api.NewClient(controller.RuntimeDir())
	if err := knows(ctx, client, namespace); err != nil {
		return err
	}
	refusals, err := client.Refusals(ctx)
	if err != nil {
		return err
	}
	for _, e := range refusals.Refusals {
		if err := into.Add(e); err != nil {
			return err
		}
	}
	into.Untold += refusals.Forgotten
	fmt.Fprintf(c.err, "from what was refused since %s\n", clock(refusals.Since))
	return nil
}

// knows returns an error if no controller runs that has a namespace.
func knows(ctx context.Context, client *api.Client, namespace string) error {
	_, err := client.Why(ctx, namespace)
	var unknown controller.ErrUnknown
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: have its files declare it, with its members and mode: audit", err)
	case errors.Is(err, api.ErrNotRunning):
		return fmt.Errorf("%w; or name what watch -o json wrote with --from", err)
	}
	return err
}
