package cgroup

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// mount is one cgroup2 mount as /proc/self/mountinfo shows it.
type mount struct {
	point string // where it is mounted
	root  string // the cgroup that its root directory is, from the root of the cgroup namespace
}

// level returns the level of the cgroup at the root of the mount.
func (m mount) level() int { return Level(m.root) }

// parseMountinfo returns the cgroup2 mounts among the lines of a mountinfo
// file (proc_pid_mountinfo(5)), those first that show the whole cgroup
// namespace, then those that show the most of it. Mounts of cgroups outside
// of the cgroup namespace (their root begins with "/..") are left out: the
// kernel's levels don't reach them. Lines that can't be read are skipped.
func parseMountinfo(text string) []mount {
	var mounts []mount
	for line := range strings.Lines(text) {
		// 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(kind) == 0 || kind[0] != "cgroup2" {
			continue
		}
		m := mount{point: unescape(fields[4]), root: unescape(fields[3])}
		if m.root != "/.." && !strings.HasPrefix(m.root, "/../") {
			mounts = append(mounts, m)
		}
	}
	slices.SortStableFunc(mounts, func(a, b mount) int { return cmp.Compare(a.level(), b.level()) })
	return mounts
}

// unescape undoes the octal escapes of mountinfo: space, tab, newline and
// backslash are written \040, \011, \012 and \134.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
