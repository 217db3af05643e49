package controller

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/nft"
)

// mostDone is how many changes are told of one commit.
const mostDone = 20

// actorOf tells who committed to nftables, and what. Where the process ran is
// added if it still lives.
func actorOf(g nft.Generation, did []nft.Change) events.Actor {
	a := events.Actor{PID: g.PID, Process: g.Process}
	for i, c := range slices.Backward(did) {
		if c.Verb == nft.VerbDelete && c.Kind == "table" {
			did = did[i:] // before it comes all that was in it
			break
		}
	}
	for _, c := range did[:min(len(did), mostDone)] {
		a.Did = append(a.Did, c.String())
	}
	if more := len(did) - mostDone; more > 0 {
		a.Did = append(a.Did, fmt.Sprintf("%d more", more))
	}
	locate(&a)
	return a
}

// locate adds where a process runs, if it still lives: its number may be
// another's by now.
func locate(a *events.Actor) {
	proc := fmt.Sprintf("/proc/%d/", a.PID)
	comm, err := os.ReadFile(proc + "comm")
	if err != nil || strings.TrimSuffix(string(comm), "\n") != a.Process {
		return
	}
	if text, err := os.ReadFile(proc + "cgroup"); err == nil {
		a.Cgroup = cgroupOf(string(text))
		a.Unit = unitOf(a.Cgroup)
	}
}

// cgroupOf returns the cgroup v2 path in the text of /proc/PID/cgroup
// (cgroups(7)): the line "0::/path".
func cgroupOf(text string) string {
	for line := range strings.Lines(text) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return p
		}
	}
	return ""
}

// unitOf returns the innermost systemd unit that a cgroup path leads through,
// slices aside; "" if there is none.
func unitOf(dir string) string {
	for ; dir != "/" && dir != "" && dir != "."; dir = path.Dir(dir) {
		switch name := path.Base(dir); path.Ext(name) {
		case ".service", ".scope", ".socket", ".mount":
			return cgroup.UnitOf(name)
		}
	}
	return ""
}
