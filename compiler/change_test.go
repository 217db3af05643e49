package compiler

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/nft"
)

var changed = modeltest.Options{
	Cgroups: []string{"/a", "/b", "/c", "/d/e", "/d/f", "/d/g/h"},
	Pattern: "/users/*",
	Devices: []string{"/run/netns/there"},
	Long:    true,
	Ports:   []uint16{22, 80, 443}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::1")},
}

// drawFacts draws which cgroups that a policy names exist.
func drawFacts(t *rapid.T, p *model.Policy) Facts {
	f := Facts{Devices: map[string]DeviceFacts{}, Instance: 7}
	for _, d := range p.DeviceNamespaces {
		f.Devices[d.Name] = DeviceFacts{Addresses: changed.Addresses}
	}
	exists := func(path string) bool { return rapid.IntRange(0, 3).Draw(t, path) > 0 }
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, m := range n.Members {
			if m.Cgroup != "" && exists(m.Cgroup) {
				f.Members = append(f.Members, Member{Namespace: n.Name, Path: m.Cgroup, ID: uint64(len(m.Cgroup)) + uint64(m.Cgroup[len(m.Cgroup)-1])<<8, Level: strings.Count(m.Cgroup, "/")})
			} else {
				f.Missing = append(f.Missing, Missing{n.Name, m})
			}
		}
		if n.Each == "" {
			continue
		}
		f.Doors = append(f.Doors, Door{Device: n.Device, Templates: []string{n.Name}, Path: "/users", ID: 5000, Level: 1})
		for u := range uint64(3) {
			if path := fmt.Sprintf("/users/%d", u); exists(path) {
				f.Members = append(f.Members, Member{Namespace: fmt.Sprintf("%s/%d", n.Name, u), Path: path, ID: 6000 + u, Level: 2})
			}
		}
	}
	return f
}

func drawPolicy(t *rapid.T, text string) (string, *model.Policy) {
	for {
		switch {
		case text == "" || rapid.IntRange(0, 4).Draw(t, "anew") == 0:
			text = modeltest.YAML(changed).Draw(t, "policy")
		case rapid.IntRange(0, 4).Draw(t, "of a group") == 0:
			text = strings.Replace(text, "groups:\n  corp: ", fmt.Sprintf("groups:\n  g%d: 198.51.100.9\n  corp: ", rapid.IntRange(0, 9).Draw(t, "group")), 1)
		default:
			text = modeltest.Edited(text).Draw(t, "edited")
		}
		p, diags := model.Parse([]model.File{{Name: "p.yaml", Data: []byte(text)}})
		if !diags.HasErrors() {
			return text, p
		}
		text = ""
	}
}

// TestChange edits policies and has cgroups come and go. The difference of the
// parts of tables has to be that of whole tables, over many edits.
func TestChange(t *testing.T) {
	for _, c := range []struct {
		name    string
		compile func(*model.Policy, Facts) *Program
	}{
		{"as many as there are", Compile},
		{"shared", func(p *model.Policy, f Facts) *Program { return CompileWith(p, f, AllPasses) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tried, done := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				text, p := drawPolicy(t, "")
				f := drawFacts(t, p)
				cold := c.compile(p, f)
				prog := cold
				for range rapid.IntRange(1, 4).Draw(t, "edits") {
					if rapid.IntRange(0, 2).Draw(t, "edit") > 0 {
						text, p = drawPolicy(t, text)
					}
					f = drawFacts(t, p)
					next := c.compile(p, f)
					checkCalls(t, prog, p, f)
					tried++
					d := prog.Change(p, f)
					if d == nil {
						prog, cold = next, next
						continue
					}
					done++
					checkDifference(t, cold, next, d)
					prog, cold = d.Program, next
				}
			})
			t.Logf("%d of %d edits", done, tried)
			if done < tried/4 {
				t.Errorf("%d of %d edits were compiled alone", done, tried)
			}
		})
	}
}

// checkCalls compiles for the syscall tier after a former policy.
func checkCalls(t *rapid.T, former *Program, p *model.Policy, f Facts) {
	got, index := former.CompileSyscalls(p, f)
	want, all := CompileSyscalls(p, f)
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(index, all) {
		t.Fatalf("after a former policy:\n%+v\n%+v\nwant\n%+v\n%+v", got, index, want, all)
	}
}

func checkDifference(t *rapid.T, old, new *Program, d *Difference) {
	tables := func(p *Program) map[string]*nft.Table {
		m := make(map[string]*nft.Table)
		for _, d := range p.Devices {
			m[d.Name] = d.Table
		}
		return m
	}
	was, is := tables(old), tables(new)
	for i, dev := range d.Program.Devices {
		if !reflect.DeepEqual(dev.Index, new.Devices[i].Index) {
			t.Fatalf("%s: another index:\n%+v\n%+v", dev.Name, dev.Index, new.Devices[i].Index)
		}
	}
	for _, dev := range d.Devices {
		chains := make(map[string]nft.Chain)
		for _, c := range was[dev.Name].Chains {
			chains[c.Name] = c
		}
		unread := make(map[string]bool)
		for _, name := range dev.Unread {
			unread[name] = true
		}
		for i := range dev.Old.Chains {
			if name := dev.Old.Chains[i].Name; unread[name] {
				c, there := chains[name]
				if !there {
					t.Fatalf("%s: chain %s is in no table", dev.Name, name)
				}
				dev.Old.Chains[i] = c
				delete(unread, name)
			}
		}
		if len(unread) > 0 {
			t.Fatalf("%s: not in the old part: %v", dev.Name, unread)
		}
		want, got := nft.Diff(was[dev.Name], is[dev.Name]), nft.Diff(dev.Old, dev.New)
		if want.Rebuild != got.Rebuild {
			t.Fatalf("%s: rebuilt: %t, want %t", dev.Name, got.Rebuild, want.Rebuild)
		}
		if !want.Rebuild && got.String() != want.String() {
			t.Fatalf("%s:\n%s\nwant\n%s", dev.Name, got.String(), want.String())
		}
		if a, b := Steps(dev.Old, dev.New), Steps(was[dev.Name], is[dev.Name]); !reflect.DeepEqual(a, b) {
			t.Fatalf("%s: %v, want %v", dev.Name, a, b)
		}
	}
}
