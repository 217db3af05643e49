package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
)

// netnsDir is where ip-netns(8) names network namespaces.
const netnsDir = "/run/netns"

// stale finds the network namespaces that hold a table of this instance and
// are not among those planned (by identityKey).
func (h *Host) stale(planned map[string]bool) ([]*hostDevice, error) {
	var found []*hostDevice
	for _, d := range candidates() {
		used := h.devices[d.Name] // by others than this function
		dev, err := h.open(d)
		if err != nil {
			continue // it went, or it is no network namespace
		}
		key := identityKey(dev)
		if planned[key] {
			if d.Name != model.HostDevice && h.devices[d.Name] == dev && d.Name == d.Path {
				dev.close()
				delete(h.devices, d.Name)
			}
			continue
		}
		planned[key] = true
		t, err := dev.conn.Header(compiler.TableName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("device namespace %s: read table: %w", dev.name, err)
		}
		if err == nil && t.Comment == compiler.TableComment(h.Instance()) {
			found = append(found, dev)
			continue
		}
		if dev != used {
			dev.close()
			delete(h.devices, d.Name)
		}
	}
	return found, nil
}

func identityKey(d *hostDevice) string { return fmt.Sprint(d.ns.Identity()) }

// candidates lists the network namespaces that can be reached: the host's, the
// named ones, and those of running processes. Each has its path as its name.
func candidates() []model.DeviceNamespace {
	list := []model.DeviceNamespace{{Name: model.HostDevice}}
	seen := make(map[string]bool) // net:[inode], as /proc shows them
	if own, err := os.Readlink("/proc/self/ns/net"); err == nil {
		seen[own] = true
	}
	named, _ := filepath.Glob(netnsDir + "/*")
	sort.Strings(named)
	for _, path := range named {
		list = append(list, model.DeviceNamespace{Name: path, Path: path})
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range processes {
		if link, err := os.Readlink(path); err == nil && !seen[link] {
			seen[link] = true
			list = append(list, model.DeviceNamespace{Name: path, Path: path})
		}
	}
	return list
}
