package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/model"
)

const tierPolicy = `
apiVersion: sockns/v1
enforcement: {syscalls: required}
socketNamespaces:
  a:
    members: [{cgroup: $CG/a}]
    connect:
      - {action: deny, error: EACCES, protocol: tcp, ports: 31001}
      - {to: any}
`

// What connect(2) returns for the rule above, and from whom.
const (
	byCall   = "EACCES"
	byPacket = "EHOSTUNREACH" // docs/errors.md: what TCP over IPv4 shows of an EACCES
)

// patience is for a machine under load; the log has the time that it took,
// which is under a second on one that is not.
const patience = 30 * time.Second

// tierWorld has a server on port 31001, a cgroup a that may not reach it, and
// a controller that says so.
type tierWorld struct {
	*world
	controller *exec.Cmd
	log        *lockedBuffer
}

func newTierWorld(t *testing.T, wrap ...string) *tierWorld {
	w := &tierWorld{world: newWorld(t, &txtar.Archive{Files: []txtar.File{{Name: "policy1.yaml", Data: []byte(tierPolicy)}}})}
	w.play("netns host 192.0.2.1/32\ncgroup a\npolicy 1\nlisten - tcp 192.0.2.1:31001")
	w.run(wrap...)
	w.within(patience, "the programs run", func() bool { return w.dial() == byCall })
	return w
}

// run starts the controller, in the words of wrap.
func (w *tierWorld) run(wrap ...string) {
	args := append([]string{"--net=/run/netns/" + w.netns(w.first)}, wrap...)
	w.log = &lockedBuffer{}
	w.controller = exec.Command("nsenter", append(args, w.bin+"/sockns", "run", "-f", w.policy)...)
	w.controller.Env = append(os.Environ(), "SOCKNS_RUNTIME_DIR="+w.tmp+"/run")
	w.background(w.controller, w.log)
	w.Cleanup(func() {
		if w.Failed() {
			w.Log(w.log)
		}
	})
}

// reach connects and returns what became of it; that it is not refused is an
// error whatever happened.
func (w *tierWorld) reach() string {
	w.Helper()
	got := w.dial()
	if got != byCall && got != byPacket {
		w.Fatalf("connect: %s: the policy refuses it", got)
	}
	return got
}

func (w *tierWorld) dial() string {
	w.Helper()
	return w.step([]string{"connect", "a", "tcp", "192.0.2.1:31001"})
}

// within waits for something that has to happen in time.
func (w *tierWorld) within(limit time.Duration, what string, ok func() bool) {
	w.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			w.Fatalf("after %v it is not so that %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.Logf("%s after %v", what, time.Since(start).Round(time.Millisecond))
}

// pins returns the directory of the pins.
func (w *tierWorld) pins() string {
	ns, err := device.Open(model.DeviceNamespace{Name: "host", Path: "/run/netns/" + w.netns(w.first)})
	if err != nil {
		w.Fatal(err)
	}
	defer ns.Close()
	return fmt.Sprintf("/sys/fs/bpf/sockns/%d", ns.Identity().Cookie)
}

func (w *tierWorld) exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestControllerKilled: the programs and the tables stay, and the next
// controller finds nothing to do.
func TestControllerKilled(t *testing.T) {
	w := newTierWorld(t)
	w.kill()
	for range 20 {
		if got := w.reach(); got != byCall {
			t.Fatalf("without the controller: %s", got)
		}
	}
	w.run()
	w.within(patience, "it is there again", func() bool { return strings.Contains(w.log.String(), "it was in force already") })
	if strings.Contains(w.log.String(), "msg=changed") {
		t.Errorf("it changed something:\n%s", w.log)
	}
	if got := w.reach(); got != byCall {
		t.Errorf("after the restart: %s", got)
	}
}

// TestPinRemoved: nothing opens, and the pin is there again within a second.
func TestPinRemoved(t *testing.T) {
	w := newTierWorld(t)
	for _, name := range []string{"link_sockns_connect4", "map_active", "slot0_members", "slot1_members"} {
		pin := filepath.Join(w.pins(), name)
		if strings.HasPrefix(name, "slot") && !w.exists(pin) {
			continue // the slot was never used
		}
		if err := os.Remove(pin); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "slot") {
			w.within(patience, "the policy is in a slot with its pins", func() bool {
				return w.exists(filepath.Join(w.pins(), "slot0_members")) && w.sockns([]string{"plan", "--detailed-exitcode", "-f", w.policy}) == "0" ||
					w.exists(filepath.Join(w.pins(), "slot1_members")) && w.sockns([]string{"plan", "--detailed-exitcode", "-f", w.policy}) == "0"
			})
		} else {
			w.within(patience, name+" is there again", func() bool { w.reach(); return w.exists(pin) })
		}
		w.within(patience, "connect(2) answers", func() bool { return w.reach() == byCall })
	}
}

// TestLinkDetached: the packets refuse until what was detached, one link or
// all of them with their pins, is attached again, within a second.
func TestLinkDetached(t *testing.T) {
	for _, pattern := range []string{"link_sockns_connect4", "link_*"} {
		t.Run(pattern, func(t *testing.T) {
			w := newTierWorld(t)
			links, err := filepath.Glob(filepath.Join(w.pins(), pattern))
			if err != nil || len(links) == 0 {
				t.Fatalf("links: %v %v", links, err)
			}
			for _, path := range links {
				w.detach(path)
				if len(links) > 1 {
					w.must("rm", path)
				}
			}
			w.reach() // by the packets, if nobody was faster
			w.within(patience, "connect(2) answers", func() bool { return w.reach() == byCall })
			for _, path := range links {
				w.within(patience, filepath.Base(path)+" is there again", func() bool { return w.exists(path) })
			}
		})
	}
}

// TestDetachedForGood: without a controller nothing repairs it, and the packets
// go on refusing; an apply attaches it again.
func TestDetachedForGood(t *testing.T) {
	w := newTierWorld(t)
	w.kill()
	w.detach(filepath.Join(w.pins(), "link_sockns_connect4"))
	for range 20 {
		if got := w.reach(); got != byPacket {
			t.Fatalf("without the program: %s", got)
		}
	}
	w.play("apply")
	if got := w.reach(); got != byCall {
		t.Errorf("after an apply: %s", got)
	}
}

// detach detaches a link as `bpftool link detach` does; its pin stays.
func (w *tierWorld) detach(path string) {
	w.Helper()
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		w.Fatal(err)
	}
	defer l.Close()
	if err := l.(interface{ Detach() error }).Detach(); err != nil {
		w.Fatal(err)
	}
}

// kill ends the controller as the kernel does when memory is short.
func (w *tierWorld) kill() {
	_ = syscall.Kill(-w.controller.Process.Pid, syscall.SIGKILL)
	_ = w.controller.Wait()
}

// TestBpffsUnmounted: the controller has the links open, so they go on; it
// mounts bpffs and pins them again within a second. The controller is the init
// of a pid and mount namespace, where bpffs is its own.
func TestBpffsUnmounted(t *testing.T) {
	w := newTierWorld(t, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `while umount /sys/fs/bpf 2>/dev/null; do :; done; mount -t bpf bpf /sys/fs/bpf && exec "$@"`, "sh")
	init := strings.TrimSpace(w.must("pgrep", "-P", fmt.Sprint(w.controller.Process.Pid)))
	pins := "/proc/" + init + "/root" + w.pins()
	if !w.exists(pins) {
		t.Fatalf("%s is not there", pins)
	}
	w.must("nsenter", "-t", init, "-m", "-p", "umount", "/sys/fs/bpf")
	w.within(patience, "the pins are there again", func() bool { w.reach(); return w.exists(pins + "/link_sockns_connect4") })
	w.within(patience, "connect(2) answers", func() bool { return w.reach() == byCall })
	// Who unmounts it while nobody has the links open takes the programs away.
	w.kill()
	w.within(patience, "the programs are gone with their pins", func() bool { return w.reach() == byPacket })
}

// TestForeignProgram: a program of somebody else that allows what the policy
// refuses is asked after ours at the root, before it in the cgroup. Packets
// refuse in either case.
func TestForeignProgram(t *testing.T) {
	w := newTierWorld(t)
	for _, test := range []struct{ where, cgroup, want string }{
		{"in the cgroup", filepath.Join(w.base, "a"), byCall},
		{"at the root", w.mount, byPacket},
	} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
			Instructions: asm.Instructions{
				asm.LoadMem(asm.R2, asm.R1, 24, asm.Word), // user_port, network order
				asm.JNE.Imm(asm.R2, int32(31001>>8|31001&0xff<<8), "out"),
				asm.Mov.Imm(asm.R1, 0),
				asm.FnSetRetval.Call(),
				asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
				asm.Return(),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: test.cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: prog})
		if err != nil {
			t.Fatal(err)
		}
		if got := w.reach(); got != test.want {
			t.Errorf("%s: %s, want %s", test.where, got, test.want)
		}
		l.Close()
		prog.Close()
	}
	if got := w.reach(); got != byCall {
		t.Errorf("when it is gone: %s", got)
	}
}

// lockedBuffer is written by a process and read by a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
