package controller

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockns/sockns/e2e/roottest"
)

// sleepIn starts a process in a network namespace and a cgroup, and returns its number.
func sleepIn(t *testing.T, h *Host, netns, cgroup string) int {
	t.Helper()
	cmd := exec.Command("nsenter", "--net="+netns, "sh", "-c", "echo there; exec sleep 300")
	if cmd.Err != nil {
		roottest.Miss(t, "nsenter(1)")
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := os.WriteFile(filepath.Join(h.Cgroups.Dir(cgroup), "cgroup.procs"), fmt.Append(nil, pid), 0o644); err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestWhoseProcess: a process in a cgroup that is below members of two device
// namespaces is of the socket namespace of the one that it is in, though the
// other's member may be deeper.
func TestWhoseProcess(t *testing.T) {
	base := makeCgroups(t, "a/b/c", "d")
	second, third := otherNetns(t), otherNetns(t)
	inNetns(t, func(t *testing.T, h *Host) {
		packetsAlone(h)
		own := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.home.FD())
		r, stop := startAlone(t, h, fmt.Sprintf(`apiVersion: sockns/v1
deviceNamespaces: {blue: {path: %[2]s}}
socketNamespaces:
  here: {members: [{cgroup: %[1]s/a}]}
  there: {deviceNamespace: blue, members: [{cgroup: %[1]s/a/b}, {cgroup: %[1]s/d}]}
  deep: {members: [{cgroup: %[1]s/a/b/c}]}
`, base, second))
		defer stop()
		for _, c := range []struct{ netns, cgroup, want, refused string }{
			{own, "a", "here", ""},
			{own, "a/b", "here", ""},
			{own, "a/b/c", "deep", ""},
			{second, "a/b", "there", ""},
			{second, "a/b/c", "there", ""},
			{second, "d", "there", ""},
			{second, "a", "", "which here claims in another device namespace, but the process is in blue"},
			{own, "d", "", "which there claims in another device namespace, but the process is in host"},
			{third, "a", "", "is in a network namespace that the policy does not name"},
		} {
			pid := sleepIn(t, h, c.netns, base+"/"+c.cgroup)
			got, err := r.namespaceOfProcess(pid)
			if got != c.want {
				t.Errorf("in %s, cgroup %s: %q, %v", c.netns, c.cgroup, got, err)
			}
			if _, unknown := errors.AsType[ErrUnknown](err); c.refused != "" && (!unknown || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("in %s, cgroup %s: %v", c.netns, c.cgroup, err)
			}
			at, err := Locate(r.good.Policy, pid)
			if c.netns == third {
				if err == nil {
					t.Errorf("Locate in %s: %+v", c.netns, at)
				}
			} else if err != nil || at.Namespace != c.want || (at.Device == "blue") != (c.netns == second) {
				t.Errorf("Locate in %s, cgroup %s: %+v, %v", c.netns, c.cgroup, at, err)
			}
		}
	})
}
