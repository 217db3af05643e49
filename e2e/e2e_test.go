// Package e2e tests sockns with real sockets of real processes in real cgroups
// and network namespaces. Each archive in testdata is a scenario:
//
//	netns NAME ADDR...                a network namespace and its addresses (on lo)
//	link NETNS ADDR NETNS ADDR        a veth pair
//	cgroup NAME...                    cgroups below one of the test's own, $CG
//	policy N                          policyN.yaml is used from here on
//	example NAME                      examples/NAME.yaml, its slices below $CG
//	apply [= STATUS]                  sockns apply --auto-approve -f the policy
//	sockns ARGS... = STATUS           any other command; $POLICY is the file
//	listen CGROUP[@NETNS] tcp|udp ADDR:PORT
//	http CGROUP[@NETNS] ADDR          a Go server with its default listener
//	start CGROUP[@NETNS] COMMAND...   any server; it runs until the end
//	ask CGROUP[@NETNS] COMMAND... = OUTPUT   any client; asked again for 30 s
//	send CGROUP[@NETNS] ADDR:PORT      one datagram from a socket that is not connected
//	connect CGROUP[@NETNS] tcp|udp [from ADDR] ADDR:PORT [marked N] = who answers|ERRNO|silence
//	nft NETNS ARGS...                 nft(8), in the directory of the archive's files
//	counted NETNS TABLE COUNTER = N|some     packets of a named counter
//	hold NAME CGROUP[@NETNS] tcp|udp ADDR:PORT   a connection that stays
//	held NAME = open|closed
//	said WORDS, silent WORDS          in what sockns printed last, or not in it
//	rmcgroup NAME, mkcgroup NAME
//	tables N                          nft lists that many tables in all netns together
//
// The archive's other files are in the directory that servers start in.
// A cgroup that is - is none: an unmanaged process. Sockns runs in the first netns.
package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/e2e/roottest"
)

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			newWorld(t, archive).play(string(archive.Comment))
		})
	}
}

// binaries builds sockns and the actor once.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sockns-e2e")
	if err != nil {
		return "", err
	}
	for _, pkg := range []string{"./cmd/sockns", "./e2e/actor"} {
		cmd := exec.Command("go", "build", "-o", dir+"/", pkg)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", pkg, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := binaries(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// world is the machine that a scenario plays on.
type world struct {
	*testing.T
	bin, tag, base, tmp string
	mount               string
	first               string // netns
	all                 []string
	policies            map[string][]byte
	policy              string // path
	links               int
	said                string // by sockns, last
	wanted              string // of the step, if it says so
	holders             map[string]*caller
}

func newWorld(t *testing.T, a *txtar.Archive) *world {
	roottest.Need(t)
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, bin: bin, mount: tree.Mount(), tmp: t.TempDir(), policies: make(map[string][]byte), holders: make(map[string]*caller)}
	w.tag = fmt.Sprintf("sne%dt%d", os.Getpid(), time.Now().UnixNano()%1e6)
	w.base = filepath.Join(w.mount, w.tag)
	if err := os.Mkdir(w.base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.removeTree(w.base) })
	for _, f := range a.Files {
		w.policies[f.Name] = f.Data
		name := filepath.Join(w.tmp, f.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, f.Data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	w.policy = filepath.Join(w.tmp, "policy.yaml")
	return w
}

func (w *world) removeTree(dir string) {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	var dirs []string
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		err := os.Remove(dirs[i])
		for end := time.Now().Add(30 * time.Second); err != nil && !errors.Is(err, os.ErrNotExist) && time.Now().Before(end); err = os.Remove(dirs[i]) {
			time.Sleep(5 * time.Millisecond) // killed processes are leaving
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.Errorf("left behind: %v", err)
		}
	}
}

func (w *world) play(script string) {
	for i, line := range strings.Split(script, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		want := ""
		for j, word := range words {
			if word == "=" {
				words, want = words[:j], strings.Join(words[j+1:], " ")
				break
			}
		}
		w.wanted = want
		got := w.step(words)
		if want == "" && (words[0] == "hold" || words[0] == "said" || words[0] == "silent") {
			want = "ok"
		}
		if want == "" && (words[0] == "listen" || words[0] == "http" || words[0] == "apply") {
			want = map[string]string{"listen": "ok", "http": "ok", "apply": "0"}[words[0]]
		}
		if want != "" && !contains(strings.Split(want, "|"), got) {
			w.Errorf("line %d: %s: got %s", i+1, line, got)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func (w *world) step(words []string) string {
	w.Helper()
	args := words[1:]
	switch words[0] {
	case "netns":
		w.addNetns(args[0], args[1:])
	case "link":
		w.links++
		a, b := fmt.Sprintf("sa%dn%d", os.Getpid(), w.links), fmt.Sprintf("sb%dn%d", os.Getpid(), w.links)
		w.must("ip", "-n", w.netns(args[0]), "link", "add", a, "type", "veth", "peer", "name", b, "netns", w.netns(args[2]))
		for _, end := range [][3]string{{args[0], args[1], a}, {args[2], args[3], b}} {
			addr := []string{"-n", w.netns(end[0]), "addr", "add", end[1], "dev", end[2]}
			if strings.Contains(end[1], ":") {
				addr = append(addr, "nodad")
			}
			w.must("ip", addr...)
			// No link-local address: it would come a while later, and be one
			// more local address than an apply has seen.
			w.must("ip", "-n", w.netns(end[0]), "link", "set", end[2], "addrgenmode", "none")
			w.must("ip", "-n", w.netns(end[0]), "link", "set", end[2], "up")
		}
	case "cgroup", "mkcgroup":
		for _, name := range args {
			if err := os.MkdirAll(filepath.Join(w.base, name), 0o755); err != nil {
				w.Fatal(err)
			}
		}
	case "rmcgroup":
		w.removeTree(filepath.Join(w.base, args[0]))
	case "policy":
		text := string(w.policies["policy"+args[0]+".yaml"])
		text = strings.ReplaceAll(text, "$CG", "/"+w.tag)
		text = strings.ReplaceAll(text, "$NS_", "/run/netns/"+w.tag+"-")
		if err := os.WriteFile(w.policy, []byte(text), 0o644); err != nil {
			w.Fatal(err)
		}
	case "example":
		text, err := os.ReadFile(filepath.Join("../examples", args[0]+".yaml"))
		if err != nil {
			w.Fatal(err)
		}
		for _, slice := range []string{"/user.slice", "/system.slice"} {
			text = bytes.ReplaceAll(text, []byte(" "+slice), []byte(" /"+w.tag+slice))
		}
		if err := os.WriteFile(w.policy, text, 0o644); err != nil {
			w.Fatal(err)
		}
	case "apply":
		return w.sockns(append([]string{"apply", "--auto-approve", "-f", w.policy}, args...))
	case "sockns":
		for i := range args {
			if args[i] == "$POLICY" {
				args[i] = w.policy
			}
		}
		return w.sockns(args)
	case "tables":
		out := ""
		for _, name := range w.all {
			out += w.must("nsenter", "--net=/run/netns/"+w.netns(name), "nft", "list", "tables")
		}
		if n := strings.Count(out, "table "); fmt.Sprint(n) != args[0] {
			w.Errorf("%d tables, want %s: %s", n, args[0], out)
		}
	case "listen":
		return w.serve("listen", args[0], args[1:]...)
	case "http":
		return w.serve("http", args[0], args[1:]...)
	case "start":
		dir, ns, _ := w.place(args[0])
		cmd := exec.Command(w.bin+"/actor", append([]string{"exec", dir, ns}, args[1:]...)...)
		cmd.Dir = w.tmp
		w.background(cmd)
	case "ask":
		dir, ns, _ := w.place(args[0])
		var said string
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			out, err := exec.Command(w.bin+"/actor", append([]string{"exec", dir, ns}, args[1:]...)...).CombinedOutput()
			said = strings.TrimSpace(string(out))
			if err == nil {
				break
			}
			said += " " + err.Error()
		}
		return said
	case "hold":
		dir, ns, _ := w.place(args[1])
		w.holders[args[0]] = w.caller("hold", dir, ns, args[2], args[3])
		return w.holders[args[0]].next()
	case "held":
		return w.holders[args[0]].do("look")
	case "said", "silent":
		text := strings.Join(strings.Fields(w.said), " ")
		if strings.Contains(text, strings.Join(args, " ")) != (words[0] == "said") {
			return "not so"
		}
		return "ok"
	case "send":
		dir, ns, _ := w.place(args[0])
		return strings.TrimSpace(w.must(w.bin+"/actor", "flood", dir, ns, args[1], "1"))
	case "nft":
		cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + w.netns(args[0]), "nft"}, args[1:]...)...)
		cmd.Dir = w.tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			w.Fatalf("nft: %v\n%s", err, out)
		}
	case "counted":
		out := strings.Fields(w.must("nsenter", "--net=/run/netns/"+w.netns(args[0]), "nft", "list", "counter", "inet", args[1], args[2]))
		if n := out[slices.Index(out, "packets")+1]; n == "0" || w.wanted != "some" {
			return n
		}
		return "some"
	case "connect":
		c, ns, _ := w.place(args[0])
		from, mark := "", ""
		if n := len(args) - 2; args[n] == "marked" {
			args, mark = args[:n], args[n+1]
		}
		if args[2] == "from" {
			from = args[3]
		}
		rest := []string{args[1], args[len(args)-1], from, mark}
		out, _ := exec.Command(w.bin+"/actor", append([]string{"dial", c, ns}, rest...)...).CombinedOutput()
		return strings.TrimSpace(string(out))
	default:
		w.Fatalf("unknown step %q", words[0])
	}
	return ""
}

func (w *world) netns(name string) string { return w.tag + "-" + name }

func (w *world) addNetns(name string, addrs []string) {
	w.all = append(w.all, name)
	ns := w.netns(name)
	w.must("ip", "netns", "add", ns)
	w.Cleanup(func() { w.must("ip", "netns", "del", ns) })
	if w.first == "" {
		w.first = name
		w.Cleanup(func() { w.sockns([]string{"delete", "--auto-approve"}) })
	}
	w.must("ip", "-n", ns, "link", "set", "lo", "up")
	for _, a := range addrs {
		w.must("ip", "-n", ns, "addr", "add", a, "dev", "lo")
	}
}

func (w *world) must(name string, args ...string) string {
	w.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		w.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sockns runs the binary in the first netns and returns its exit status.
func (w *world) sockns(args []string) string {
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + w.netns(w.first), w.bin + "/sockns"}, args...)...)
	cmd.Env = append(os.Environ(), "SOCKNS_RUNTIME_DIR="+w.tmp+"/run")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		w.Fatal(err)
	}
	w.said = string(out)
	w.Logf("sockns %s\n%s", strings.Join(args, " "), out)
	return fmt.Sprint(cmd.ProcessState.ExitCode())
}

// place returns the cgroup directory, the netns file and the name of an actor.
func (w *world) place(who string) (dir, netns, name string) {
	name, ns, ok := strings.Cut(who, "@")
	if !ok {
		ns = w.first
	}
	dir = "-"
	if name != "-" {
		dir = filepath.Join(w.base, name)
	}
	return dir, "/run/netns/" + w.netns(ns), name
}

// serve starts a server of the actor and returns what it says of its bind.
func (w *world) serve(verb, who string, args ...string) string {
	dir, ns, name := w.place(who)
	cmd := exec.Command(w.bin+"/actor", append(append([]string{verb, dir, ns}, args...), name)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	w.background(cmd)
	line, _ := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line)
}

// background starts a command that is killed at the end, with all that it
// started. What it says goes to log, or to the test's own standard error.
func (w *world) background(cmd *exec.Cmd, log ...io.Writer) {
	cmd.Stderr = io.MultiWriter(log...)
	if len(log) == 0 {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
}
