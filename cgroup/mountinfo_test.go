package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMountinfo(t *testing.T) {
	tests := []struct {
		name, text string
		want       []mount
	}{
		{"unified", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]mount{{"/sys/fs/cgroup", "/"}}},
		{"hybrid", `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`, []mount{{"/sys/fs/cgroup/unified", "/"}}},
		{"only version 1", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", nil},
		{"optional fields", "30 23 0:26 / /cg rw shared:1 master:2 unbindable - cgroup2 none rw\n", []mount{{"/cg", "/"}}},
		{"whole tree before a subtree", `50 23 0:26 /docker/abc /container rw - cgroup2 cgroup2 rw
51 23 0:26 /docker /docker rw - cgroup2 cgroup2 rw
52 23 0:26 / /late rw - cgroup2 cgroup2 rw
`, []mount{{"/late", "/"}, {"/docker", "/docker"}, {"/container", "/docker/abc"}}},
		{"outside of the cgroup namespace", `50 23 0:26 /../.. /up rw - cgroup2 cgroup2 rw
51 23 0:26 /.. /parent rw - cgroup2 cgroup2 rw
52 23 0:26 /..data /odd rw - cgroup2 cgroup2 rw
`, []mount{{"/odd", "/..data"}}},
		{"escapes", `30 23 0:26 / /mnt/a\040b\134c\x rw - cgroup2 cgroup2 rw` + "\n", []mount{{`/mnt/a b\c\x`, "/"}}},
		{"short and broken lines", "\n30\n30 23 0:26 / /cg rw - \n - cgroup2\n30 23 0:26 / /cg rw cgroup2\n", nil},
		{"no newline at the end", "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw", []mount{{"/cg", "/"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseMountinfo(test.text), cmp.AllowUnexported(mount{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLevel(t *testing.T) {
	for path, want := range map[string]int{"/": 0, "/a": 1, "/a/b": 2, "/user.slice/user-1000.slice/x": 3} {
		if got := Level(path); got != want {
			t.Errorf("Level(%q) = %d, want %d", path, got, want)
		}
	}
	sub := &Tree{mount: "/container", level: 2}
	if got := sub.Level("/a/b"); got != 4 {
		t.Errorf("level below a mount of a subtree = %d, want 4", got)
	}
}
