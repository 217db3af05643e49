package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// playPage plays the commands of a page of the documentation, and compares what
// they print with what the page says that they do.
//
//	page policy FILE PAGE   writes the page's YAML to a file
//	page play PAGE          plays it
//
// Commands are in blocks that are indented: "$ COMMAND" is run in the network
// namespace, "web$ COMMAND" in the cgroup web.service there as well, and one
// that ends in & goes on until the block's end. Lines that follow are printed
// in this order, perhaps among others; one that ends in "..." is the beginning of one.
func playPage(ts *testscript.TestScript, _ bool, args []string) {
	switch {
	case len(args) == 3 && args[0] == "policy":
		_, rest, _ := strings.Cut(ts.ReadFile(args[2]), "```yaml\n")
		policy, _, ok := strings.Cut(rest, "```")
		if !ok {
			ts.Fatalf("%s has no YAML", args[2])
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(policy), 0o644))
	case len(args) == 2 && args[0] == "play":
		n := 0
		for _, b := range blocks(ts.ReadFile(args[1])) {
			if strings.HasPrefix(b[0], "$ ") || strings.HasPrefix(b[0], "web$ ") {
				playBlock(ts, b)
				n++
			}
		}
		if n == 0 {
			ts.Fatalf("%s has no commands", args[1])
		}
	default:
		ts.Fatalf("usage: page policy FILE PAGE | page play PAGE")
	}
}

// blocks returns the indented blocks of a page, by line.
func blocks(text string) [][]string {
	var all [][]string
	var block []string
	fenced := false
	for line := range strings.Lines(text + "\nend\n") {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented && !fenced:
			block = append(block, code)
		case line == "" && len(block) > 0:
			block = append(block, "")
		case len(block) > 0:
			all = append(all, block)
			block = nil
		}
	}
	return all
}

// prompt is a line that begins a command.
var prompt = regexp.MustCompile(`^(web)?\$ (.*)$`)

func playBlock(ts *testscript.TestScript, lines []string) {
	var running *output
	for i := 0; i < len(lines); {
		m := prompt.FindStringSubmatch(lines[i])
		var want []string
		for i++; i < len(lines) && prompt.FindString(lines[i]) == ""; i++ {
			if lines[i] != "" {
				want = append(want, lines[i])
			}
		}
		command, goesOn := strings.CutSuffix(m[2], " &")
		if goesOn {
			running = &output{}
			cmd := shell(ts, m[1], command)
			cmd.Stdout, cmd.Stderr = running, running
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			ts.Check(cmd.Start())
			defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }()
			// It listens once it has printed its header; the page shows that later.
			await(ts, "it prints something", func() string { return running.String() })
			continue
		}
		if running != nil {
			all := &output{}
			runLine(ts, m[1], command, all)
			await(ts, strings.Join(want, "\n"), func() string { return all.String() + running.String() }, want...)
			continue
		}
		once := &output{}
		runLine(ts, m[1], command, once)
		await(ts, strings.Join(want, "\n"), func() string {
			text := once.String()
			if strings.HasPrefix(command, "sockns ") { // it asks, and may be asked again
				once = &output{}
				runLine(ts, m[1], command, once)
			}
			return text
		}, want...)
		if strings.HasPrefix(command, "sed ") {
			await(ts, "the edit is in force", func() string {
				if shell(ts, "", "sockns diff -f policy.yaml").Run() != nil {
					return ""
				}
				return "the edit is in force"
			}, "the edit is in force")
		}
	}
}

// shell is a command line of the page.
func shell(ts *testscript.TestScript, who, line string) *exec.Cmd {
	enter := ""
	if who != "" {
		enter = fmt.Sprintf("echo 0 >%s/%s.service/cgroup.procs && ", ts.Getenv("CGDIR"), who)
	}
	cmd := exec.Command("sh", "-c", enter+`exec nsenter --net="$NS" sh -c "$LINE"`)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "NS", "SOCKNS_RUNTIME_DIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, "LINE="+line)
	return cmd
}

// runLine runs a command line; the page says what it prints, not how it ends.
func runLine(ts *testscript.TestScript, who, line string, out *output) {
	cmd := shell(ts, who, line)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); cmd.ProcessState == nil {
		ts.Fatalf("%s: %v", line, err)
	}
}

// await waits until the lines are among what get returns.
func await(ts *testscript.TestScript, what string, get func() string, lines ...string) {
	var got []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text := get()
		if len(lines) == 0 && text != "" {
			return
		}
		got = strings.Split(canonical(ts, text), "\n")
		if len(lines) > 0 && among(ts, lines, got) {
			return
		}
		if time.Now().After(end) {
			break
		}
		if what == "" {
			return // nothing is said of what it prints
		}
	}
	ts.Fatalf("the page is not what happens (-page +printed):\n%s", cmp.Diff(strings.Split(canonical(ts, strings.Join(lines, "\n")), "\n"), got))
}

// among reports whether some lines are among others in their order.
func among(ts *testscript.TestScript, lines, all []string) bool {
	for _, line := range lines {
		line = canonical(ts, line)
		start, rest := strings.CutSuffix(line, "...")
		i := slices.IndexFunc(all, func(l string) bool { return l == line || rest && strings.HasPrefix(l, start) })
		if i < 0 {
			return false
		}
		all = all[i+1:]
	}
	return true
}

var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d `), "DATE "},
	{regexp.MustCompile(`\d\d:\d\d:\d\d`), "HH:MM:SS"},
	{regexp.MustCompile(`pid \d+`), "pid PID"},
	{regexp.MustCompile(`\[\d+\] `), "[PID] "},
	{regexp.MustCompile(`(127\.0\.0\.1:)\d{5}( ->)`), "${1}PORT${2}"},
}

// canonical takes out what is another each time.
func canonical(ts *testscript.TestScript, text string) string {
	text = strings.ReplaceAll(text, ts.Getenv("CG"), "/system.slice")
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.with)
	}
	return text
}

// output is written by a process and read by a test.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// documentation returns where the pages are.
func documentation() (string, error) { return filepath.Abs("../../docs") }
