package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/model"
)

// Process is where a running process is in a policy: whose the sockets are
// that it makes now. Those that it has were made where it was then.
type Process struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	Cgroup string `json:"cgroup"` // below the cgroup2 mount
	Device string `json:"deviceNamespace"`
	// Namespace is a socket namespace, of a template the instance; empty if its
	// sockets are unmanaged.
	Namespace string `json:"socketNamespace,omitempty"`
	Member    string `json:"member,omitempty"` // the cgroup by which it is
	// Elsewhere names the socket namespace of another device namespace that
	// claims the cgroup: nothing of it holds where the process is.
	Elsewhere string `json:"claimedBy,omitempty"`
}

// Locate finds a process in a policy. Its network namespace can be read by
// root and by the process's own user. It has to be one of the policy's.
func Locate(p *model.Policy, pid int) (*Process, error) {
	at, err := locateProcess(pid, p.DeviceNamespaces, func(d model.DeviceNamespace) uint64 {
		file := d.Path
		if file == "" {
			file = "/proc/thread-self/ns/net" // as [device.Open]
		}
		var st unix.Stat_t
		if unix.Stat(file, &st) != nil {
			return 0
		}
		return st.Ino
	})
	if err != nil {
		return nil, err
	}
	tree, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	found, err := tree.Resolve(p)
	if err != nil {
		return nil, err
	}
	members := make(map[string][]cgroup.Member)
	for _, m := range found.Members {
		members[m.Path] = append(members[m.Path], m)
	}
	at.place(func(dir string, claimed func(device, namespace string)) {
		for _, m := range members[dir] {
			claimed(m.Device, m.Namespace)
		}
	})
	return at, nil
}

// locateProcess finds where a process is: its cgroup, and its device namespace
// among some, whose inodes inode knows. place is to follow.
func locateProcess(pid int, devices []model.DeviceNamespace, inode func(model.DeviceNamespace) uint64) (*Process, error) {
	at := &Process{PID: pid}
	dir := fmt.Sprintf("/proc/%d/", pid)
	comm, err := os.ReadFile(dir + "comm")
	if err != nil {
		return nil, gone(pid, err)
	}
	at.Name = strings.TrimSuffix(string(comm), "\n")
	text, err := os.ReadFile(dir + "cgroup")
	if err != nil {
		return nil, gone(pid, err)
	}
	switch at.Cgroup = cgroupOf(string(text)); {
	case at.Cgroup == "":
		return nil, fmt.Errorf("process %d (%s) is in no cgroup v2: mount the hierarchy, or ask in words", pid, at.Name)
	case strings.HasPrefix(at.Cgroup, "/.."):
		return nil, fmt.Errorf("process %d (%s) is in cgroup %s, outside of the cgroup namespace here: ask from where its cgroup can be seen", pid, at.Name, at.Cgroup)
	}
	var netns unix.Stat_t
	switch err := unix.Stat(dir+"ns/net", &netns); {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the network namespace of process %d (%s) can't be read: %w; ask as root, or as the user of the process", pid, at.Name, fs.ErrPermission)
	case err != nil:
		return nil, gone(pid, err)
	}
	var names []string
	for _, d := range devices {
		if inode(d) == netns.Ino {
			at.Device = d.Name
			return at, nil
		}
		names = append(names, d.Name)
	}
	return nil, fmt.Errorf("process %d (%s) is in a network namespace that the policy does not name (it names %s): nothing of it holds there; declare it under deviceNamespaces as {path: %sns/net}",
		pid, at.Name, strings.Join(names, ", "), dir)
}

// place finds the deepest member that the process's cgroup is in. claims calls
// claimed for each that a cgroup is.
func (at *Process) place(claims func(dir string, claimed func(device, namespace string))) {
	for dir := at.Cgroup; at.Namespace == ""; dir = path.Dir(dir) {
		claims(dir, func(device, namespace string) {
			switch {
			case device == at.Device:
				at.Namespace, at.Member = namespace, dir
			case at.Elsewhere == "":
				at.Elsewhere = namespace
			}
		})
		if dir == "/" || dir == "." {
			break
		}
	}
	if at.Namespace != "" {
		at.Elsewhere = ""
	}
}

// gone is the error of a process that can't be read.
func gone(pid int, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return processGone(pid)
	}
	return err
}

// processGone is the number of a process that is not there.
type processGone int

func (pid processGone) Error() string {
	return fmt.Sprintf("there is no process %d, or it has ended", int(pid))
}

// Who names the process's sockets as a question does: "web", "user/1000",
// "unmanaged in blue".
func (at *Process) Who() string {
	switch {
	case at.Namespace != "":
		return at.Namespace
	case at.Device != model.HostDevice:
		return "unmanaged in " + at.Device
	}
	return "unmanaged"
}

// String says where the process is.
func (at *Process) String() string {
	who := fmt.Sprintf("process %d (%s) is in cgroup %s", at.PID, at.Name, at.Cgroup)
	switch {
	case at.Namespace != "":
		return fmt.Sprintf("%s: a socket that it makes now is of %s, by the member %s", who, at.Namespace, at.Member)
	case at.Elsewhere != "":
		return fmt.Sprintf("%s, which %s claims in another device namespace, but the process is in %s: a socket that it makes is unmanaged", who, at.Elsewhere, at.Device)
	}
	return who + ", which no socket namespace claims: a socket that it makes is unmanaged"
}
