package model

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fileText draws the text of a policy file, with mistakes now and then. Names,
// cgroups, groups and keys are few, so that files get in one another's way.
func fileText(t *rapid.T) string {
	if rapid.IntRange(0, 19).Draw(t, "broken") == 0 {
		return rapid.SampledFrom([]string{"", "apiVersion: [", "socketNamespaces: {}\n", "apiVersion: sockns/v1\nnothing: 1\n", "apiVersion: sockns/v1\ngroups: {corp: 1.2.3.4"}).Draw(t, "text")
	}
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "corp", "lab", "any"})
	device := rapid.SampledFrom([]string{"blue", "red", "host"})
	var b strings.Builder
	b.WriteString("apiVersion: sockns/v1\n")
	once := func(odds int, what string) bool { return rapid.IntRange(0, odds).Draw(t, what) == 0 }
	if once(7, "timeout") {
		fmt.Fprintf(&b, "udpTimeout: %s\n", rapid.SampledFrom([]string{"5s", "7s", "1ms", "x"}).Draw(t, "for"))
	}
	if once(7, "enforcement") {
		fmt.Fprintf(&b, "enforcement: {syscalls: %s}\n", rapid.SampledFrom([]string{"auto", "required", "never"}).Draw(t, "syscalls"))
	}
	if once(4, "devices") {
		fmt.Fprintf(&b, "deviceNamespaces:\n  %s: {%s: /run/x}\n", device.Draw(t, "device"), rapid.SampledFrom([]string{"path", "path", "netns"}).Draw(t, "by"))
	}
	if once(1, "groups") {
		fmt.Fprintf(&b, "groups: {%s: 10.%d.0.0/16}\n", name.Draw(t, "group"), rapid.IntRange(0, 9).Draw(t, "net"))
	}
	if n := rapid.IntRange(0, 3).Draw(t, "namespaces"); n > 0 {
		b.WriteString("socketNamespaces:\n")
		for i := range n {
			fmt.Fprintf(&b, "  %s%s:\n    members: [{%s}]\n", name.Draw(t, "name"), rapid.SampledFrom([]string{"", "", "1", "2"}).Draw(t, "number"),
				rapid.SampledFrom([]string{"cgroup: /x", "cgroup: /y", "unit: x.service", fmt.Sprintf("cgroup: /z%d", rapid.IntRange(0, 99).Draw(t, "cgroup")), "cgroup: z"}).Draw(t, "member"))
			if once(5, "elsewhere") {
				fmt.Fprintf(&b, "    deviceNamespace: %s\n", device.Draw(t, "where"))
			}
			fmt.Fprintf(&b, "    connect:\n      - {protocol: tcp, ports: %d, to: [%s, %s]}\n", 1+i, name.Draw(t, "peer"), name.Draw(t, "other"))
			if once(3, "accept") {
				fmt.Fprintf(&b, "    accept:\n      - {protocol: tcp, local: %s, from: any}\n", name.Draw(t, "local"))
			}
		}
	}
	if once(5, "tests") {
		fmt.Fprintf(&b, "tests:\n  - %s connect %s tcp/80: allow\n", name.Draw(t, "from"), name.Draw(t, "to"))
	}
	return b.String()
}

// TestReparse edits, adds and removes files at random. Parsing what changed has to
// be the same as parsing all, mistakes included, and what was returned before
// must stay as it was.
func TestReparse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var files, before []File
		var last *Parsed
		var policy *Policy
		for range rapid.IntRange(1, 6).Draw(t, "edits") {
			next := append([]File(nil), files...)
			for range rapid.IntRange(1, 2).Draw(t, "at once") {
				at := rapid.IntRange(0, len(next)).Draw(t, "file")
				switch {
				case at == len(next):
					next = append(next, File{Name: fmt.Sprintf("%d.yaml", rapid.IntRange(0, 9999).Draw(t, "new")), Data: []byte(fileText(t))})
				case rapid.IntRange(0, 5).Draw(t, "remove") == 0:
					next = append(next[:at:at], next[at+1:]...)
				default:
					next[at].Data = []byte(fileText(t))
				}
			}
			got, diagnostics, kept := Reparse(next, last)
			want, all := Parse(next)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("another policy than that of all files:\n%+v\n%+v", got, want)
			}
			if !reflect.DeepEqual(diagnostics, all) {
				t.Fatalf("other messages than about all files:\n%v\n%v", diagnostics, all)
			}
			if policy != nil {
				if former, _ := Parse(before); !reflect.DeepEqual(policy, former) {
					t.Fatalf("the policy before was changed:\n%+v\n%+v", policy, former)
				}
			}
			files, before, last, policy = next, next, kept, got
		}
	})
}

// TestReparseSharesWhatIsSame fails if everything is parsed anew, which would go unnoticed.
func TestReparseSharesWhatIsSame(t *testing.T) {
	files := []File{{Name: "a.yaml", Data: []byte("apiVersion: sockns/v1\ngroups: {corp: 10.0.0.0/8}\nsocketNamespaces:\n" + strings.ReplaceAll(many(3), "any", "corp"))},
		{Name: "b.yaml", Data: []byte("apiVersion: sockns/v1\ngroups: {lab: 192.0.2.0/24}\n")}}
	before, _, last := Reparse(files, nil)
	files[1].Data = []byte("apiVersion: sockns/v1\ngroups: {lab: 192.0.3.0/24}\n")
	after, _, _ := Reparse(files, last)
	for i := range before.SocketNamespaces {
		a, b := &before.SocketNamespaces[i], &after.SocketNamespaces[i]
		if &a.Connect[0] != &b.Connect[0] {
			t.Errorf("%s was parsed anew", a.Name)
		}
		if b.Connect[0].Peers[0].Kind != PeerGroup {
			t.Errorf("the peer of %s is no group", b.Name)
		}
	}
}
