package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine says on what the benchmarks run.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	virtual := ""
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil && bytes.Contains(info, []byte(" hypervisor")) {
		virtual = ", virtual"
	}
	return fmt.Sprintf("%d cores of %s%s, %s, Linux %s, %s", runtime.NumCPU(), cpuName(), virtual, memory(), release, runtime.Version())
}

func cpuName() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return runtime.GOARCH
}

func memory() string {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (s.Totalram*uint64(s.Unit)+1<<29)>>30)
}
