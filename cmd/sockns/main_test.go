package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/syscalls"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sockns":   main,
		"holder":   holder,
		"notified": notified,
		"serve":    serve,
	})
}

// serve answers HTTP on some addresses until it is killed.
func serve() {
	for _, address := range os.Args[1:] {
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
		}()
	}
	fmt.Println("ready")
	select {}
}

// holder keeps the lock of a command until it is killed.
func holder() {
	if _, err := controller.Acquire(context.Background(), controller.RuntimeDir(), controller.RoleCommand, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// notified prints what is sent to NOTIFY_SOCKET, as systemd would get it.
func notified() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(strings.TrimSpace(string(buf[:n])))
	}
}

// exits runs a command line and compares its exit status.
//
//	exits N COMMAND...
func exits(prefix ...string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		var words []string
		for _, p := range prefix {
			words = append(words, os.Expand(p, ts.Getenv))
		}
		words = append(words, args[1:]...)
		got := "0"
		if err := ts.Exec(words[0], words[1:]...); err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				ts.Fatalf("%v", err)
			}
			got = fmt.Sprint(exit.ExitCode())
		}
		if got != args[0] {
			ts.Fatalf("exit status %s, want %s", got, args[0])
		}
	}
}

// TestScripts runs the commands that need no privilege and touch nothing.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits()},
	})
}

// TestKernelScripts runs the commands against the kernel. Each script has a
// network namespace, named by the file $NS, and a cgroup, $CG from the root of
// the tree and $CGDIR as a directory, with the children web, db, other,
// web.service and db.service.
//
//	in N COMMAND...  runs it in the network namespace; N is its exit status
//	policy FILE...   puts the values of $CG and $NS into files
//	page ...         see playPage
func TestKernelScripts(t *testing.T) {
	roottest.Need(t)
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	// As systemd does: who mounts it needs CAP_SYS_ADMIN, who uses it does not.
	if _, err := syscalls.MountBpffs(); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/kernel",
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return world(env, tree.Mount()) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits(),
			"page":  playPage,
			"in":    exits("nsenter", "--net=${NS}"),
			"policy": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, name := range args {
					text := strings.NewReplacer("$CG", ts.Getenv("CG"), "$NS", ts.Getenv("NS")).Replace(ts.ReadFile(name))
					ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
				}
			},
		},
	})
}

// world makes the network namespace and the cgroups of a script.
func world(env *testscript.Env, mount string) error {
	name := fmt.Sprintf("sns%d-%s", os.Getpid(), filepath.Base(env.WorkDir))
	dir := filepath.Join(mount, name)
	env.Setenv("CG", "/"+name)
	env.Setenv("CGDIR", dir)
	env.Setenv("NS", "/run/netns/"+name)
	env.Setenv("SOCKNS_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
	docs, err := documentation()
	if err != nil {
		return err
	}
	env.Setenv("DOCS", docs)
	children := []string{"web", "db", "other", "web.service", "db.service"}
	for _, d := range children {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	env.Defer(func() {
		for _, d := range append(children, "") {
			_ = os.Remove(filepath.Join(dir, d))
		}
	})
	for _, args := range [][]string{{"netns", "add", name}, {"-n", name, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w\n%s", args, err, out)
		}
	}
	env.Defer(func() {
		endProcesses(name) // a controller that is left by a script that failed
		path, _, _ := strings.Cut(env.Getenv("PATH"), ":")
		cmd := exec.Command("nsenter", "--net=/run/netns/"+name, filepath.Join(path, "sockns"), "delete", "--auto-approve")
		cmd.Env = env.Vars
		if out, err := cmd.CombinedOutput(); err != nil {
			env.T().Log(fmt.Sprintf("delete: %v\n%s", err, out))
		}
		_ = exec.Command("ip", "netns", "del", name).Run()
	})
	return nil
}

// endProcesses kills what runs in a network namespace, and waits for its end.
func endProcesses(netns string) {
	for range 100 {
		pids, err := exec.Command("ip", "netns", "pids", netns).Output()
		if err != nil || len(pids) == 0 {
			return
		}
		for _, field := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}
