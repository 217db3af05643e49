package controller

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// Compile returns what a policy compiles to on this host. It reads neither
// tables nor anything else that needs privilege.
func (h *Host) Compile(p *model.Policy) (*compiler.Program, error) {
	devices, err := h.openAll(p)
	if err != nil {
		return nil, err
	}
	facts, err := h.facts(p, devices)
	if err != nil {
		return nil, err
	}
	return compiler.Compile(p, facts), nil
}

// TextOptions say how this host's tables are printed, so that nft(8) can read
// them: it looks cgroups up below /sys/fs/cgroup.
func (h *Host) TextOptions() nft.TextOptions {
	paths := h.cgroupPaths()
	opts := nft.TextOptions{CgroupPath: func(id uint64) string { return strings.TrimPrefix(paths[id], "/") }}
	if rel, err := filepath.Rel("/sys/fs/cgroup", h.Cgroups.Mount()); err == nil && rel != "." && !strings.HasPrefix(rel, "..") {
		opts.CgroupPrefix = rel + "/"
	}
	return opts
}

// cgroupPaths returns the path of each cgroup by its id.
func (h *Host) cgroupPaths() map[uint64]string {
	paths := make(map[uint64]string)
	root := h.Cgroups.Mount()
	_ = filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // what vanishes during the walk is not there
		}
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil {
			paths[st.Ino] = path.Join("/", strings.TrimPrefix(dir, root))
		}
		return nil
	})
	return paths
}
