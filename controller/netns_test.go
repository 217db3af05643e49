package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// inNetns runs the test in a network namespace of its own, on a thread of its
// own, with the host opened there. What the host made is gone afterwards.
func inNetns(t *testing.T, test func(t *testing.T, h *Host)) {
	t.Helper()
	roottest.Need(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		h, err := OpenHost()
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		defer func() {
			plan, err := h.Plan(nil)
			if err == nil {
				err = h.Apply(plan)
			}
			if err != nil {
				t.Errorf("remove all: %v", err)
			}
		}()
		test(t, h)
	}()
	<-done
}

// makeCgroups makes cgroups below one of the test's own and returns its path
// below the mount.
func makeCgroups(t *testing.T, names ...string) string {
	t.Helper()
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("/sockns-test-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
	for _, name := range append([]string{""}, names...) {
		dir := tree.Dir(filepath.Join(base, name))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		var dirs []string
		_ = filepath.WalkDir(tree.Dir(base), func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil {
				t.Errorf("left behind: %v", err)
			}
		}
	})
	return base
}

func mustParse(t interface{ Fatalf(string, ...any) }, text string) *model.Policy {
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}})
	if diagnostics.HasErrors() {
		t.Fatalf("%v\n%s", diagnostics, text)
	}
	return p
}

// apply plans and applies, and fails unless a second plan finds nothing to do.
func apply(t interface{ Fatalf(string, ...any) }, h *Host, p *model.Policy) {
	plan, err := h.Plan(p)
	if err == nil {
		err = h.Apply(plan)
	}
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if plan, err = h.Plan(p); err != nil {
		t.Fatalf("plan after apply: %v", err)
	}
	if !plan.Changes() {
		return
	}
	for _, d := range plan.Devices {
		if !d.Change.Empty() {
			t.Fatalf("plan after apply: device namespace %s changes: %+v", d.Name, d.Change)
		}
	}
	t.Fatalf("plan after apply: the syscall tier changes: %+v", plan.Calls)
}
