package service

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/sockns/sockns/events"
)

// notifier tells systemd how the service is (sd_notify(3), Type=notify-reload).
// Without systemd it does nothing. Its methods are safe for concurrent use.
type notifier struct {
	log *slog.Logger

	mu      sync.Mutex
	started bool
}

func newNotifier(log *slog.Logger) *notifier { return &notifier{log: log} }

func (n *notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("systemd can't be told", "state", state, "error", err)
	}
}

// observe tells of an event that an operator sees in systemctl status.
func (n *notifier) observe(e events.Event) {
	switch e.Kind {
	case events.Started:
		n.mu.Lock()
		n.started = true
		n.mu.Unlock()
		n.send(daemon.SdNotifyReady + "\nSTATUS=the policy is in force")
	case events.PolicyLoaded:
		n.status("the policy is in force")
	case events.PolicyBroken:
		what := e.Error
		if len(e.Problems) > 0 {
			what = e.Problems[0].String()
		}
		n.status(e.Message + ", the files are broken: " + what)
	case events.Failed:
		n.status(e.Message + ": " + e.Error)
	case events.Stopping:
		n.send(daemon.SdNotifyStopping + "\nSTATUS=" + e.Message)
	}
}

func (n *notifier) status(text string) { n.send("STATUS=" + text) }

// reloading says that a reload begins, and when: systemd waits for a ready that
// comes after that moment.
func (n *notifier) reloading() {
	if !n.running() {
		return
	}
	n.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// ready says that a reload is over.
func (n *notifier) ready() {
	if n.running() {
		n.send(daemon.SdNotifyReady)
	}
}

// running reports whether READY was said once: before, a reload is a part of
// the start.
func (n *notifier) running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.started
}

// watchdog sends a sign of life as often as systemd wants one (WatchdogSec=),
// as long as alive succeeds.
func (n *notifier) watchdog(ctx context.Context, alive func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("the watchdog is not served", "error", err)
	}
	if interval == 0 {
		return
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !n.running() {
			continue // systemd does not wait for it yet
		}
		patience, cancel := context.WithTimeout(ctx, interval)
		err := alive(patience)
		cancel()
		switch {
		case err == nil:
			n.send(daemon.SdNotifyWatchdog)
		case ctx.Err() == nil:
			n.log.Error("the controller gives no sign of life", "error", err)
		}
	}
}
