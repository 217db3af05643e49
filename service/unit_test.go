package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installed runs make install into a directory of the test's own.
func installed(t *testing.T) (prefix, etc string) {
	t.Helper()
	dir := t.TempDir()
	prefix, etc = filepath.Join(dir, "usr"), filepath.Join(dir, "etc")
	makeTarget(t, "install", prefix, etc)
	return prefix, etc
}

func makeTarget(t *testing.T, target, prefix, etc string) {
	t.Helper()
	cmd := exec.Command("make", "-C", "..", target, "PREFIX="+prefix, "SYSCONFDIR="+etc)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", target, err, out)
	}
}

func files(t *testing.T, dirs ...string) (list []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				list = append(list, strings.TrimPrefix(path, filepath.Dir(dir)+"/"))
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return list
}

func TestInstall(t *testing.T) {
	prefix, etc := installed(t)
	want := `usr/bin/sockns
usr/lib/systemd/system/sockns.service
usr/share/bash-completion/completions/sockns
usr/share/fish/vendor_completions.d/sockns.fish
usr/share/zsh/site-functions/_sockns
etc/sockns/policy.yaml.example`
	if got := strings.Join(files(t, prefix, etc), "\n"); got != want {
		t.Errorf("installed:\n%s\nwant:\n%s", got, want)
	}
	out, err := exec.Command(prefix+"/bin/sockns", "validate", "-f", etc+"/sockns/policy.yaml.example").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	policy := etc + "/sockns/mine.yaml"
	if err := os.WriteFile(policy, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	verify(t, prefix+"/lib/systemd/system/sockns.service")
	makeTarget(t, "uninstall", prefix, etc)
	if got := files(t, prefix, etc); len(got) != 1 || got[0] != "etc/sockns/mine.yaml" {
		t.Errorf("left: %q", got)
	}
}

// verify has systemd read the unit, and judge how well it is locked up.
func verify(t *testing.T, unit string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("SKIPPED: systemd-analyze is not installed, the unit is not verified")
		return
	}
	out, err := exec.Command("systemd-analyze", "verify", unit).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// Before systemd 253 there is no such type.
		if !strings.Contains(line, "notify-reload") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v", err)
	}
	// The exposure is from 0 to 10, in tenths here. What is left is what it is for.
	out, err = exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
