// Command mutants puts deliberate faults into the compiler, one at a time and
// in a copy only, and says which test finds each and after how many flows.
// It exits with 1 if one is not found. It is started at the root of the module.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var (
	only   = flag.String("only", "", "only faults whose description has this in it")
	kernel = flag.Bool("kernel", false, "look for them on the kernel (root)")
)

func main() {
	flag.Parse()
	fmt.Println("| fault | in | found by | after flows |\n| --- | --- | --- | --- |")
	missed := 0
	for _, m := range mutants {
		if !strings.Contains(m.fault, *only) {
			continue
		}
		after, err := m.try()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", m.fault, err)
			missed++
			continue
		}
		fmt.Printf("| %s | %s | `%s` | %d |\n", m.fault, m.file, m.test(), after)
	}
	if missed > 0 {
		fmt.Fprintln(os.Stderr, missed, "faults were not found")
		os.Exit(1)
	}
}

// test is the one that is to find the fault.
func (m mutant) test() string {
	switch {
	case *kernel:
		return "TestKernelDoesWhatThePolicySays"
	case m.file == "syscalls.go":
		return "TestCallsDoWhatThePolicySays"
	}
	return "TestPacketsDoWhatThePolicySays"
}

// try compiles the fault into the tests of package conform and returns after
// how many flows they find it.
func (m mutant) try() (after int, err error) {
	path, err := filepath.Abs(filepath.Join("compiler", m.file))
	if err != nil {
		return 0, err
	}
	text, err := m.text(path)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "sockns-mutant")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	changed, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return 0, err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return 0, err
	}
	args := []string{"test", "-overlay", overlay, "-count=1", "./conform", "-run=^" + m.test() + "$"}
	if *kernel {
		args = append(args, "-v", "-flows=400000", "-shrink=false")
	} else {
		args = append(args, "-rapid.checks=10000", "-rapid.shrinktime=1ns", "-rapid.nofailfile")
	}
	out, err := exec.Command("go", args...).CombinedOutput()
	if err == nil {
		return 0, fmt.Errorf("not found:\n%s", out)
	}
	return flows(string(out))
}

// text returns the file with the fault in it.
func (m mutant) text(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("%s has the text to change %d times, want once:\n%s", m.file, n, m.old)
	}
	return strings.Replace(string(text), m.old, m.new, 1), nil
}

var (
	// What rapid says, and the number of the flow under the last policy.
	drawn   = regexp.MustCompile(`\[rapid\] (?:failed|panic) after (\d+) tests: (?:flow (\d+):)?`)
	decided = regexp.MustCompile(`(\d+) of \d+ decisions`)
)

// flowsEach is what the simulation tries under each policy.
const flowsEach = 200

// flows reads from the output of a failed test how many flows it tried.
func flows(out string) (int, error) {
	if m := drawn.FindStringSubmatch(out); m != nil {
		policies, _ := strconv.Atoi(m[1])
		last, _ := strconv.Atoi(m[2])
		return policies*flowsEach + last + 1, nil
	}
	if m := decided.FindAllStringSubmatch(out, -1); m != nil && strings.Contains(out, ", want ") {
		return strconv.Atoi(m[len(m)-1][1])
	}
	return 0, fmt.Errorf("the test failed in another way:\n%s", out)
}
