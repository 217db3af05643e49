package controller

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/sockdiag"
	"github.com/sockns/sockns/syscalls"
)

// Status is what this instance enforces at a moment, as the kernel has it.
type Status struct {
	Devices []DeviceStatus `json:"deviceNamespaces"`
	// Syscalls says whether the programs run, and if not, why.
	Syscalls SyscallState `json:"syscalls"`
	// Notes say which rules are not enforced as asked; only with a policy.
	Notes []compiler.Note `json:"-"`
}

// DeviceStatus is the status of one device namespace.
type DeviceStatus struct {
	Name       string            `json:"name"` // host, or the path
	Namespaces []NamespaceStatus `json:"socketNamespaces"`
	Unmanaged  int               `json:"unmanagedSockets"`
}

// NamespaceStatus is the status of one socket namespace.
type NamespaceStatus struct {
	Name    string         `json:"name"`
	Members []MemberStatus `json:"members"`
	Missing []string       `json:"missing,omitempty"` // only with a policy to compare with
	Sockets int            `json:"sockets"`
	// Elsewhere counts processes of its cgroups that sit in another network
	// namespace, where the rules do not cover them.
	Elsewhere int `json:"processesElsewhere"`
	Counts
}

// MemberStatus is a cgroup that the kernel knows as a member.
type MemberStatus struct {
	Cgroup string `json:"cgroup"`
	// Current is false if the cgroup is gone, or was made anew since.
	Current bool `json:"current"`
}

// Status reads the tables of this instance and counts sockets. With a policy,
// its members that do not exist are named, and what is not enforced as asked.
func (h *Host) Status(p *model.Policy) (*Status, error) {
	devices, err := h.stale(make(map[string]bool))
	if err != nil {
		return nil, err
	}
	paths := h.cgroupPaths()
	var missing []compiler.Missing
	if p != nil {
		found, err := h.Cgroups.Resolve(p)
		if err != nil {
			return nil, err
		}
		for _, m := range found.Missing {
			missing = append(missing, compiler.Missing{Namespace: m.Namespace, Member: m.Member})
		}
	}
	calls, err := h.tallies()
	if err != nil {
		return nil, err
	}
	status := &Status{Devices: []DeviceStatus{}, Syscalls: h.syscallState()}
	if p != nil {
		plan, _, err := h.planPolicy(p, false)
		if err != nil {
			return nil, err
		}
		status.Notes = plan.Notes
	}
	for _, dev := range devices {
		ds, err := h.deviceStatus(dev, paths, missing, calls)
		if err != nil {
			return nil, err
		}
		status.Devices = append(status.Devices, ds)
	}
	return status, nil
}

func (h *Host) deviceStatus(dev *hostDevice, paths map[uint64]string, missing []compiler.Missing, calls map[uint32][]syscalls.Tally) (DeviceStatus, error) {
	ds := DeviceStatus{Name: dev.name, Namespaces: []NamespaceStatus{}}
	table, err := dev.table()
	if err != nil {
		return ds, err
	}
	sockets, err := listSockets(dev)
	if err != nil {
		return ds, err
	}
	members := compiler.MembersOf(table, paths)
	perName := make(map[string]int)
	for _, s := range sockets {
		if name := members.Owner(paths[s.CgroupID]); name != "" {
			perName[name]++
		} else {
			ds.Unmanaged++
		}
	}
	byName := make(map[string][]MemberStatus)
	for id, m := range members.ByID {
		path, current := paths[id]
		if !current {
			path = m.Path
		}
		byName[m.Namespace] = append(byName[m.Namespace], MemberStatus{Cgroup: path, Current: current})
	}
	for _, list := range byName {
		slices.SortFunc(list, func(a, b MemberStatus) int { return strings.Compare(a.Cgroup, b.Cgroup) })
	}
	described := compiler.Describe(table)
	counts := countsOf(described, calls)
	for _, d := range described {
		n := NamespaceStatus{Name: d.Name, Sockets: perName[d.Name], Members: []MemberStatus{}, Counts: counts[d.Name]}
		n.Members = append(n.Members, byName[d.Name]...)
		for _, m := range n.Members {
			if m.Current {
				n.Elsewhere += h.elsewhere(m.Cgroup, dev)
			}
		}
		for _, m := range missing {
			if m.Namespace == d.Name {
				n.Missing = append(n.Missing, m.Member.String())
			}
		}
		ds.Namespaces = append(ds.Namespaces, n)
	}
	return ds, nil
}

// syscallState asks the kernel whether the programs run.
func (h *Host) syscallState() SyscallState {
	tier, err := syscalls.Open(h.Instance())
	if err == nil {
		defer tier.Close()
		return SyscallState{Enforced: true, Variant: string(tier.Variant())}
	}
	s := SyscallState{Why: h.callSupport().Why}
	if s.Why == "" {
		s.Why = "the programs do not run: apply again"
	}
	return s
}

func listSockets(dev *hostDevice) ([]sockdiag.Socket, error) {
	conn, err := sockdiag.Dial(dev.ns.NetNS())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	sockets, err := conn.List()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(sockets, func(s sockdiag.Socket) bool {
		return s.State == sockdiag.TimeWait || s.State == sockdiag.NewSynReceived
	}), nil
}

// elsewhere counts the processes of a cgroup subtree that are in another
// network namespace than dev.
func (h *Host) elsewhere(cgroup string, dev *hostDevice) int {
	n := 0
	_ = filepath.WalkDir(h.Cgroups.Dir(cgroup), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, pid := range bytes.Fields(data) {
			var st unix.Stat_t
			if unix.Stat("/proc/"+string(pid)+"/ns/net", &st) == nil && st.Ino != dev.ns.Identity().Inode {
				n++
			}
		}
		return nil
	})
	return n
}
