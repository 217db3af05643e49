package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// RuntimeDir is where an instance keeps its lock and its socket:
// SOCKNS_RUNTIME_DIR, or /run/sockns.
func RuntimeDir() string {
	if dir := os.Getenv("SOCKNS_RUNTIME_DIR"); dir != "" {
		return dir
	}
	return "/run/sockns"
}

// Lock is the right to change what the instance enforces. It ends with the
// process, however that ends (flock(2)).
type Lock struct{ file *os.File }

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("locked")

// ErrOwned says that a running controller keeps the policy, so that nobody
// else may change what is enforced.
var ErrOwned = errors.New("a controller keeps the policy of this host")

// Role is what the lock is taken for.
type Role string

// The roles. A command is done soon and worth waiting for, a controller is not.
const (
	RoleCommand    Role = "command"
	RoleController Role = "controller"
)

// Acquire takes the lock of a runtime directory. If another process has it,
// waiting is called once with a description of the holder, and Acquire waits
// until ctx is done; then the error is ErrLocked and names the holder. If the holder is a
// controller the error is ErrOwned, at once.
func Acquire(ctx context.Context, dir string, role Role, waiting func(holder string)) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the runtime directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if h := holder(path); strings.HasPrefix(h, string(RoleController)) {
			f.Close()
			return nil, fmt.Errorf("%w (%s): edit its files, which it applies by itself, or stop it", ErrOwned, h)
		} else if first && waiting != nil {
			waiting(h)
		}
		select {
		case <-ctx.Done():
			h := holder(path)
			f.Close()
			return nil, fmt.Errorf("%w by %s: wait for it, or stop it", ErrLocked, h)
		case <-time.After(20 * time.Millisecond):
		}
	}
	line := fmt.Sprintf("%s with pid %d: %s\n", role, os.Getpid(), strings.Join(os.Args, " "))
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(line), 0) // for people only; the lock is the flock
	}
	return &Lock{file: f}, nil
}

func holder(path string) string {
	data, err := os.ReadFile(path)
	if h := strings.TrimSpace(string(data)); err == nil && h != "" {
		return h
	}
	return "another process"
}

// Release gives the lock back.
func (l *Lock) Release() error { return l.file.Close() }
