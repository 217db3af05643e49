package controller

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sockns/sockns/watch"
)

// guardRetry is how often a guardian tries again that could not do its work.
const guardRetry = time.Second

// Guard waits beside a change for its confirmation, and brings the former state
// back if that does not come in time. It is the whole work of a process that
// nobody waits for, see [StartGuard]. It leaves the work to a controller that
// runs, and watches over that.
func Guard(ctx context.Context, dir string, log *slog.Logger) error {
	record, err := watch.OpenFiles(waiting.path(dir))
	if err != nil {
		return err
	}
	defer record.Close()
	for {
		p, err := ReadPending(dir)
		if errors.Is(err, ErrNothingPending) {
			return nil
		}
		if err != nil {
			return err
		}
		wait := min(p.Left(), time.Minute) // timers stand still while the machine sleeps
		if p.state == restoring || wait <= 0 {
			if done := settleAlone(ctx, dir, log); done {
				return nil
			}
			wait = guardRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-record.Events():
		case <-time.After(wait):
		}
	}
}

// settleAlone settles what waits unless a controller is there to do it.
func settleAlone(ctx context.Context, dir string, log *slog.Logger) (done bool) {
	lock, err := Acquire(ctx, dir, RoleCommand, nil)
	if err != nil {
		return false
	}
	defer lock.Release()
	host, err := OpenHost()
	if err != nil {
		log.Error("could not bring the former policy back", "error", err, "retry", guardRetry)
		return false
	}
	defer host.Close()
	p, err := host.Settle(dir)
	switch {
	case errors.Is(err, ErrPending): // it was confirmed, and there is another
		return false
	case err != nil:
		log.Error("could not bring the former policy back", "error", err, "retry", guardRetry)
		return false
	case p != nil:
		log.Warn("not confirmed in time: the former policy is back", "change", p.By)
	}
	return true
}

// StartGuard starts this program again, with other arguments, as a process of
// its own session, which neither a hangup of the terminal nor a signal to the
// process group reaches. What it says is added to a file.
func StartGuard(logfile string, args ...string) error {
	f, err := os.OpenFile(logfile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Stderr = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // a controller outlives it
	return nil
}
