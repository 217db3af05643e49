package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sockns/sockns/model"
)

// namespace makes a socket namespace from words: "/path" and "name.suffix"
// are members, "each:/pattern" and "device:name" are what they say.
func namespace(name string, words ...string) model.SocketNamespace {
	n := model.SocketNamespace{Name: name, Device: model.HostDevice}
	for _, w := range words {
		if each, ok := strings.CutPrefix(w, "each:"); ok {
			n.Each = each
		} else if device, ok := strings.CutPrefix(w, "device:"); ok {
			n.Device = device
		} else if strings.HasPrefix(w, "/") {
			n.Members = append(n.Members, model.Member{Cgroup: w})
		} else {
			n.Members = append(n.Members, model.Member{Unit: w})
		}
	}
	return n
}

// render writes a snapshot down, one fact a line.
func render(f *Found) string {
	var b strings.Builder
	for _, m := range f.Members {
		fmt.Fprintf(&b, "%s = %s level %d", m.Namespace, m.Path, m.Level)
		if m.Template != "" {
			fmt.Fprintf(&b, " of %s", m.Template)
		}
		if m.Device != model.HostDevice {
			fmt.Fprintf(&b, " on %s", m.Device)
		}
		fmt.Fprintln(&b)
	}
	for _, m := range f.Missing {
		fmt.Fprintf(&b, "%s misses %s\n", m.Namespace, m.Member)
	}
	for _, c := range f.Conflicts {
		fmt.Fprintf(&b, "conflict %s: %s\n", c.Path, strings.Join(c.Namespaces, " "))
	}
	for _, d := range f.Doors {
		fmt.Fprintf(&b, "door %s level %d for %s", d.Path, d.Level, strings.Join(d.Templates, " "))
		if d.Device != model.HostDevice {
			fmt.Fprintf(&b, " on %s", d.Device)
		}
		if len(d.Exempt) > 0 {
			b.WriteString(" exempt")
			for _, m := range d.Exempt {
				b.WriteString(" " + m.Path)
			}
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

func TestResolve(t *testing.T) {
	tests := []struct {
		name   string
		dirs   string
		policy []model.SocketNamespace
		want   string
	}{
		{
			name:   "exact paths",
			dirs:   "/prod.slice/web/deeper /prod.slice/db /other",
			policy: []model.SocketNamespace{namespace("web", "/prod.slice/web"), namespace("db", "/prod.slice/db", "/prod.slice/gone/x")},
			want: `web = /prod.slice/web level 2
db = /prod.slice/db level 2
db misses cgroup /prod.slice/gone/x
`,
		},
		{
			name:   "a deeper member inside another",
			dirs:   "/a/b",
			policy: []model.SocketNamespace{namespace("inner", "/a/b"), namespace("outer", "/a")},
			want:   "inner = /a/b level 2\nouter = /a level 1\n",
		},
		{
			name: "units in any slice, escaped, nested, and only as whole names",
			dirs: `/system.slice/nginx.service /system.slice/my-nginx.service /machine.slice/deep.slice/nginx.service/child
				/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service
				/system.slice/_memory.service /system.slice/_nginx.service`,
			policy: []model.SocketNamespace{
				namespace("web", "nginx.service"),
				namespace("mem", "memory.service", "absent.service"),
			},
			want: `web = /machine.slice/deep.slice/nginx.service level 3
web = /system.slice/_nginx.service level 2
web = /system.slice/nginx.service level 2
web = /user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service level 5
mem = /system.slice/_memory.service level 2
mem misses unit absent.service
`,
		},
		{
			name:   "the same cgroup by unit and by path",
			dirs:   "/system.slice/nginx.service",
			policy: []model.SocketNamespace{namespace("web", "nginx.service", "/system.slice/nginx.service")},
			want:   "web = /system.slice/nginx.service level 2\n",
		},
		{
			name: "two namespaces claim one cgroup",
			dirs: "/system.slice/nginx.service",
			policy: []model.SocketNamespace{
				namespace("web", "nginx.service"), namespace("www", "/system.slice/nginx.service"),
				namespace("elsewhere", "device:blue", "nginx.service"), namespace("third", "nginx.service"),
			},
			want: `web = /system.slice/nginx.service level 2
www = /system.slice/nginx.service level 2
elsewhere = /system.slice/nginx.service level 2 on blue
third = /system.slice/nginx.service level 2
conflict /system.slice/nginx.service: web www third
`,
		},
		{
			name:   "a template",
			dirs:   "/user.slice/user-1000.slice/x /user.slice/user-1001.slice /user.slice/user-.slice /user.slice/other /system.slice",
			policy: []model.SocketNamespace{namespace("user", "each:/user.slice/user-*.slice")},
			want: `user/1000 = /user.slice/user-1000.slice level 2 of user
user/1001 = /user.slice/user-1001.slice level 2 of user
door /user.slice level 1 for user exempt /user.slice/other /user.slice/user-.slice
`,
		},
		{
			name:   "a template without its directory has no door",
			dirs:   "/system.slice",
			policy: []model.SocketNamespace{namespace("user", "each:/user.slice/user-*.slice")},
		},
		{
			name:   "an empty door",
			dirs:   "/user.slice",
			policy: []model.SocketNamespace{namespace("user", "each:/user.slice/user-*.slice")},
			want:   "door /user.slice level 1 for user\n",
		},
		{
			name:   "two wildcards, and what lies between and behind them",
			dirs:   "/a/t-1/p-7/run /a/t-1/p-8 /a/t-1/other /a/t-2/p-7/run/x /a/else",
			policy: []model.SocketNamespace{namespace("job", "each:/a/t-*/p-*/run")},
			want: `job/1/7 = /a/t-1/p-7/run level 4 of job
job/2/7 = /a/t-2/p-7/run level 4 of job
door /a level 1 for job exempt /a/else /a/t-1 /a/t-2
door /a/t-1 level 2 for job exempt /a/t-1/other /a/t-1/p-7 /a/t-1/p-8
door /a/t-1/p-7 level 3 for job
door /a/t-1/p-8 level 3 for job
door /a/t-2 level 2 for job exempt /a/t-2/p-7
door /a/t-2/p-7 level 3 for job
`,
		},
		{
			name:   "no door at the root",
			dirs:   "/one.slice /two",
			policy: []model.SocketNamespace{namespace("top", "each:/*.slice")},
			want:   "top/one = /one.slice level 1 of top\n",
		},
		{
			name: "no door below a member, and members are not exempt",
			dirs: "/a/x-1 /a/mine /b/x-1 /b/y",
			policy: []model.SocketNamespace{
				namespace("whole", "/b"), namespace("mine", "/a/mine"),
				namespace("at", "each:/a/x-*"), namespace("bt", "each:/b/x-*"),
			},
			want: `whole = /b level 1
mine = /a/mine level 2
at/1 = /a/x-1 level 2 of at
bt/1 = /b/x-1 level 2 of bt
door /a level 1 for at
`,
		},
		{
			name: "an instance of one template is no door of another",
			dirs: "/a/x-1/y-1/z",
			policy: []model.SocketNamespace{
				namespace("outer", "each:/a/x-*"), namespace("inner", "each:/a/x-*/y-*"),
			},
			want: `outer/1 = /a/x-1 level 2 of outer
inner/1/1 = /a/x-1/y-1 level 3 of inner
door /a level 1 for outer inner
`,
		},
		{
			name: "device namespaces keep their doors apart",
			dirs: "/a/x-1 /a/y-1 /a/z",
			policy: []model.SocketNamespace{
				namespace("xs", "each:/a/x-*"), namespace("ys", "device:blue", "each:/a/y-*"),
			},
			want: `xs/1 = /a/x-1 level 2 of xs
ys/1 = /a/y-1 level 2 of ys on blue
door /a level 1 for ys on blue exempt /a/x-1 /a/z
door /a level 1 for xs exempt /a/y-1 /a/z
`,
		},
		{
			name: "a pattern and a path through the same directory",
			dirs: "/a/x-1/c /a/x-2/c",
			policy: []model.SocketNamespace{
				namespace("one", "/a/x-1/c"), namespace("all", "each:/a/x-*/c"),
			},
			want: `one = /a/x-1/c level 3
all/1 = /a/x-1/c level 3 of all
all/2 = /a/x-2/c level 3 of all
conflict /a/x-1/c: one all/1
door /a level 1 for all exempt /a/x-1 /a/x-2
door /a/x-1 level 2 for all
door /a/x-2 level 2 for all
`,
		},
		{
			name:   "the root as a member",
			dirs:   "/a",
			policy: []model.SocketNamespace{namespace("all", "/"), namespace("x", "each:/a/x-*")},
			want:   "all = / level 0\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range strings.Fields(test.dirs) {
				if err := os.MkdirAll(root+dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root+dir, "cgroup.procs"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tree := OpenDirectory(root)
			found, err := tree.Resolve(&model.Policy{SocketNamespaces: test.policy})
			if err != nil {
				t.Fatal(err)
			}
			if got := render(found); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
			matches := []Match{}
			for _, m := range found.Members {
				matches = append(matches, m.Match)
			}
			for _, d := range found.Doors {
				matches = append(append(matches, d.Match), d.Exempt...)
			}
			for _, m := range matches {
				if id, err := tree.ID(m.Path); err != nil || id != m.ID {
					t.Errorf("%s has id %d, %v, snapshot has %d", m.Path, id, err, m.ID)
				}
			}
		})
	}
}

// TestResolveMany resolves so many members in one directory that it is listed:
// some do not exist, some are files, and there are others.
func TestResolveMany(t *testing.T) {
	root := t.TempDir()
	var policy []model.SocketNamespace
	var want strings.Builder
	for i := range 4 * worthListing {
		name := fmt.Sprintf("%03d", i)
		policy = append(policy, namespace("n"+name, "/d/"+name))
		path := filepath.Join(root, "d", name)
		var err error
		switch i % 4 {
		case 0:
			err = os.MkdirAll(path, 0o755)
			fmt.Fprintf(&want, "n%s = /d/%[1]s level 2\n", name)
		case 1:
			err = os.WriteFile(path, nil, 0o644)
		case 2:
			err = os.MkdirAll(path+"-other/below", 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	policy = append(policy, namespace("below", "/d/000/below/further"))
	if err := os.MkdirAll(filepath.Join(root, "d/000/below/further"), 0o755); err != nil {
		t.Fatal(err)
	}
	want.WriteString("below = /d/000/below/further level 4\n")
	tree := OpenDirectory(root)
	found, err := tree.Resolve(&model.Policy{SocketNamespaces: policy})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(found.Missing); n != 3*worthListing {
		t.Errorf("%d are missing", n)
	}
	found.Missing = nil
	if got := render(found); got != want.String() {
		t.Errorf("got:\n%s\nwant:\n%s", got, want.String())
	}
	for _, m := range found.Members {
		if id, err := tree.ID(m.Path); err != nil || id != m.ID {
			t.Errorf("%s has id %d, %v, snapshot has %d", m.Path, id, err, m.ID)
		}
	}
}

func TestResolveWithoutTree(t *testing.T) {
	tree := OpenDirectory(filepath.Join(t.TempDir(), "absent"))
	if found, err := tree.Resolve(&model.Policy{}); err == nil {
		t.Errorf("resolved %+v without a tree", found)
	}
}
