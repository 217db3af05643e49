package controller

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sockns/sockns/model"
)

// equal waits until the kernel has what the policy file says, and nothing else.
func (r *running) equal(h *Host) {
	t := r.t
	t.Helper()
	l, err := Load([]string{r.file})
	if err != nil || l.Policy == nil {
		t.Fatal(err, l)
	}
	var differs string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		plan, err := h.Plan(l.Policy)
		if err != nil {
			differs = err.Error()
			continue
		}
		if !plan.Changes() {
			return
		}
		differs = ""
		for _, d := range plan.Devices {
			differs += fmt.Sprintln(d.Name, d.Change.String())
		}
		if plan.Calls.Change {
			differs += "the syscall tier"
		}
	}
	t.Fatalf("the kernel is not as the policy says: %s", differs)
}

// perUser is a template with a door.
func perUser(base string) string {
	return fmt.Sprintf(`apiVersion: sockns/v1
socketNamespaces:
  user:
    each: %[1]s/users/u-*
    connect: [{protocol: tcp, ports: 80}]
  web:
    members: [{unit: snweb.service}, {cgroup: %[1]s/web}]
    connect: [{protocol: tcp, ports: 81, to: user}]
`, base)
}

// TestStorm makes and removes 10,000 cgroups as fast as it can, most of them
// for good. What is left in the end is what the kernel knows, and the
// controller has not grown.
func TestStorm(t *testing.T) {
	base := makeCgroups(t, "users", "slice")
	inNetns(t, func(t *testing.T, h *Host) {
		other, err := OpenHost()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		r := runReconciler(t, other, perUser(base))
		defer r.stop()
		r.equal(h)
		before := heap()
		const makers, each = 4, 2500
		var wait sync.WaitGroup
		for m := range makers {
			wait.Go(func() {
				for i := range each {
					path := fmt.Sprintf("%s/users/u-%d-%d", base, m, i%500)
					switch i % 10 {
					case 1:
						path = fmt.Sprintf("%s/users/other-%d-%d", base, m, i)
					case 2:
						path = fmt.Sprintf("%s/slice/%d-%d", base, m, i)
					}
					dir := h.Cgroups.Dir(path)
					_ = os.Mkdir(dir, 0o755)
					if i%100 != 0 {
						_ = os.Remove(dir)
					}
				}
			})
		}
		wait.Wait()
		r.equal(h)
		if grown := int64(heap()) - int64(before); grown > 64<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
		if s := r.state(); s.ResyncFound != 0 || s.Failing != nil {
			t.Errorf("state: %+v", s)
		} else {
			t.Logf("%d looks at everything", s.Reconciles)
		}
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestFollow: what comes, goes and comes back, in each way that a policy can
// name it, is known without an edit.
func TestFollow(t *testing.T) {
	base := makeCgroups(t, "a")
	policy := fmt.Sprintf(`apiVersion: sockns/v1
socketNamespaces:
  session:
    each: %[1]s/users/u-*/s-*
    connect: [{to: any}]
  web:
    members: [{unit: snweb-%[2]d.service}]
  deep:
    members: [{cgroup: %[1]s/x/y/z}, {cgroup: %[1]s/x}]
    accept: [{from: session}]
`, base, os.Getpid())
	inNetns(t, func(t *testing.T, h *Host) {
		other, err := OpenHost()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		r := runReconciler(t, other, policy)
		defer r.stop()
		service := fmt.Sprintf("snweb-%d.service", os.Getpid())
		for _, step := range []string{
			"+users", "+users/other", "+users/u-1", "+users/u-1/init", "+users/u-1/s-1", "+users/u-2", "-users/u-1/s-1", "+users/u-1/s-1",
			"+" + service, "+a/" + service, "-" + service, "+" + service, "-a/" + service,
			"+a/" + service, "=a/" + service, "-a/" + service,
			"+x", "+x/y", "+x/y/z", "-x/y/z", "-x/y", "-x", "+x",
			"-users/other", "-users/u-1/s-1", "-users/u-1/init", "-users/u-1", "-users/u-2", "-users", "+users", "+users/u-3", "+users/u-3/s-9",
		} {
			dir := filepath.Join(h.Cgroups.Dir(base), step[1:])
			switch step[0] {
			case '+':
				err = os.Mkdir(dir, 0o755)
			case '-':
				err = os.Remove(dir)
			case '=': // a user's own, from its next birth on
				if err = os.Remove(dir); err == nil {
					err = os.Mkdir(dir, 0o755)
				}
			}
			if err != nil {
				t.Fatalf("%s: %v", step, err)
			}
			r.equal(h)
		}
		if s := r.state(); s.ResyncFound != 0 {
			t.Errorf("state: %+v", s)
		}
	})
}

// TestSurroundings: addresses that come and go, and a device namespace that
// appears after the start, is remade under its name, and goes.
func TestSurroundings(t *testing.T) {
	base := makeCgroups(t, "a", "b")
	ns := fmt.Sprintf("snsur%d", os.Getpid())
	policy := fmt.Sprintf(`apiVersion: sockns/v1
deviceNamespaces: {blue: {netns: %[2]s}}
socketNamespaces:
  a: {members: [{cgroup: %[1]s/a}], addresses: [192.0.2.0/24], connect: [{to: any}]}
  b: {deviceNamespace: blue, members: [{cgroup: %[1]s/b}]}
`, base, ns)
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	inNetns(t, func(t *testing.T, h *Host) {
		up(t)
		other, err := OpenHost()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		r := runReconciler(t, other, policy)
		defer r.stop()
		r.equal(h)
		run("address", "add", "192.0.2.7/32", "dev", "lo")
		r.equal(h)
		run("address", "del", "192.0.2.7/32", "dev", "lo")
		r.equal(h)
		for range 2 {
			run("netns", "add", ns)
			r.equal(h)
			if h.devices["blue"] == nil {
				t.Fatal("nobody noticed the network namespace")
			}
			run("netns", "del", ns)
		}
		run("netns", "add", ns) // at once
		defer run("netns", "del", ns)
		r.equal(h)
		run("-n", ns, "link", "set", "lo", "up")
		if out, err := exec.Command("nsenter", "--net=/run/netns/"+ns, "nft", "delete", "table", "inet", "sockns").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r.equal(h)
		if s := r.state(); s.ResyncFound != 0 {
			t.Errorf("state: %+v", s)
		}
	})
}

// TestNothingGrows: what a controller holds after many events is what it held
// after few. SOCKNS_EVENTS says how many.
func TestNothingGrows(t *testing.T) {
	events := number(t, "SOCKNS_EVENTS", 4000)
	base := makeCgroups(t, "users")
	inNetns(t, func(t *testing.T, h *Host) {
		other, err := OpenHost()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		// Without units, for which all cgroups of the machine are watched.
		policy := strings.Replace(perUser(base), "{unit: snweb.service}, ", "", 1)
		policies := []string{policy, strings.Replace(policy, "ports: 80", "ports: 8080", 1)}
		r := runReconciler(t, other, policies[0])
		defer r.stop()
		round := func(n int) {
			for i := range n {
				dir := h.Cgroups.Dir(fmt.Sprintf("%s/users/u-%d", base, i%100))
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
				switch i % 1000 {
				case 500:
					r.write(policies[i/1000%2])
				case 750:
					_ = exec.Command("nft", "flush", "ruleset").Run()
				}
				if i%50 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			r.write(policies[0])
			r.equal(h)
		}
		round(events / 10)
		before := held(t)
		round(events / 2) // a birth and a death each
		after := held(t)
		t.Logf("%d events: %+v, then %+v", events, before, after)
		if after.goroutines > before.goroutines+5 || after.descriptors > before.descriptors+5 || after.watches > before.watches || after.bpf > before.bpf {
			t.Errorf("it grows: %+v, then %+v", before, after)
		}
	})
}

// holding counts what a process has of the kernel's.
type holding struct{ goroutines, descriptors, watches, bpf int }

// held counts for a while and returns the least: a look at everything, which
// may be going on, opens the tier a second time.
func held(t *testing.T) holding {
	t.Helper()
	runtime.GC()
	least := holding{1 << 30, 1 << 30, 1 << 30, 1 << 30}
	for range 10 {
		time.Sleep(50 * time.Millisecond)
		now := holding{goroutines: runtime.NumGoroutine()}
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		now.descriptors = len(fds)
		for _, fd := range fds {
			info, _ := os.ReadFile("/proc/self/fdinfo/" + fd.Name())
			now.watches += strings.Count(string(info), "inotify wd:")
			now.bpf += strings.Count(string(info), "map_id:") + strings.Count(string(info), "link_id:") + strings.Count(string(info), "prog_id:")
		}
		least = holding{
			min(least.goroutines, now.goroutines), min(least.descriptors, now.descriptors),
			min(least.watches, now.watches), min(least.bpf, now.bpf),
		}
	}
	return least
}

// TestRestart: a controller that ends and one that follows change nothing in
// the kernel.
func TestRestart(t *testing.T) {
	base := makeCgroups(t, "users/u-1", "web")
	inNetns(t, func(t *testing.T, h *Host) {
		up(t)
		for range 3 {
			other, err := OpenHost()
			if err != nil {
				t.Fatal(err)
			}
			r := runReconciler(t, other, perUser(base))
			r.equal(h)
			before := generation(t, h)
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			other.Close()
			if other, err = OpenHost(); err != nil {
				t.Fatal(err)
			}
			r = runReconciler(t, other, perUser(base))
			if after := generation(t, h); after != before {
				t.Errorf("generation %d, then %d", before, after)
			}
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			other.Close()
		}
	})
}

func generation(t *testing.T, h *Host) uint32 {
	t.Helper()
	g, err := h.devices[model.HostDevice].conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g.ID
}
