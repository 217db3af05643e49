package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/source"
)

// reloaded returns the policy as it is now: somebody may have changed it in
// the meantime. If it is broken now, what was learned is not lost: it returns
// the one of before, and the error.
func reloaded(before *controller.Loaded, files []string, namespace string) (*controller.Loaded, error) {
	if slices.Contains(files, source.Stdin) {
		return before, nil
	}
	now, err := controller.Load(files)
	switch {
	case err != nil:
	case now.Policy == nil:
		first := slices.IndexFunc(now.Diagnostics, func(d model.Diagnostic) bool { return d.Severity == model.Error })
		err = errors.New(now.Diagnostics[first].String())
	case now.Policy.Namespace(namespace) == nil:
		err = fmt.Errorf("it has no socket namespace %s", namespace)
	default:
		return now, nil
	}
	return before, fmt.Errorf("the policy was changed meanwhile and can't take what was learned, so this is the one of before with it: %w", err)
}

// lockDirectory keeps others that learn for the same files from reading them
// until unlock is called, so that none writes what the other has not read.
func lockDirectory(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// replaceFile writes a policy file so that a reader sees the old one or the
// new. Its owner and mode stay.
func replaceFile(f model.File) error {
	name, err := filepath.EvalSymlinks(f.Name)
	if err != nil {
		return fmt.Errorf("--write: %w", err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("--write: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(f.Data)
	if err == nil {
		err = tmp.Chmod(info.Mode())
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && err == nil && os.Geteuid() == 0 {
		err = tmp.Chown(int(owner.Uid), int(owner.Gid))
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

func original(files []model.File, name string) []byte {
	for _, f := range files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}
