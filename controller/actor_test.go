package controller

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sockns/sockns/nft"
)

func TestCgroupAndUnit(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                                     {"", ""},
		"12:cpu:/a.service\n0::/\n":            {"/", ""},
		"0::/system.slice/ssh.service\n":       {"/system.slice/ssh.service", "ssh.service"},
		"0::/system.slice/ssh.service/child\n": {"/system.slice/ssh.service/child", "ssh.service"},
		"0::/user.slice/user-1000.slice/session-3.scope\n":                         {"/user.slice/user-1000.slice/session-3.scope", "session-3.scope"},
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app.service\n": {"/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", "app.service"},
		"1:name=systemd:/x\n0::/system.slice\n":                                    {"/system.slice", ""},
	} {
		cgroup := cgroupOf(text)
		if got := [2]string{cgroup, unitOf(cgroup)}; got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestActor(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	us := nft.Generation{PID: uint32(os.Getpid()), Process: strings.TrimSpace(string(comm))}
	did := []nft.Change{{Verb: nft.VerbDelete, Kind: "table", Table: "sockns", Count: 1}}
	a := actorOf(us, did)
	if a.Cgroup == "" || len(a.Did) != 1 || a.Did[0] != "delete table" {
		t.Errorf("this process: %+v", a)
	}
	// What was in a table that is gone says nothing, nor does a long list.
	flushed := append([]nft.Change{{Verb: nft.VerbDelete, Kind: "chain", Table: "sockns", Name: "web", Count: 1}}, did...)
	if a := actorOf(us, flushed); strings.Join(a.Did, ", ") != "delete table" {
		t.Errorf("a flush: %q", a.Did)
	}
	many := slices.Repeat([]nft.Change{{Verb: nft.VerbAdd, Kind: "chain", Table: "sockns", Name: "web", Count: 1}}, mostDone+5)
	if a := actorOf(us, many); len(a.Did) != mostDone+1 || a.Did[mostDone] != "5 more" {
		t.Errorf("many changes: %q", a.Did)
	}
	// Another process has the number by now.
	us.Process = "another"
	if a := actorOf(us, did); a.Cgroup != "" {
		t.Errorf("another process: %+v", a)
	}
}
