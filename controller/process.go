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
	at := Process{PID: pid}
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
	if at.Device, err = deviceOf(p, pid, at.Name); err != nil {
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
	at.place(found.Members)
	return &at, nil
}

// place finds the deepest member that the process's cgroup is in.
func (at *Process) place(members []cgroup.Member) {
	other := ""
	for _, m := range members {
		if m.Path != at.Cgroup && !strings.HasPrefix(at.Cgroup, strings.TrimSuffix(m.Path, "/")+"/") {
			continue
		}
		switch {
		case m.Device == at.Device && len(m.Path) > len(at.Member):
			at.Namespace, at.Member = m.Namespace, m.Path
		case m.Device != at.Device && len(m.Path) > len(other):
			at.Elsewhere, other = m.Namespace, m.Path
		}
	}
	if at.Namespace != "" {
		at.Elsewhere = ""
	}
}

// deviceOf returns the device namespace of a policy that a process is in.
func deviceOf(p *model.Policy, pid int, name string) (string, error) {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("the network namespace of process %d (%s) can't be read: %w; ask as root, or as the user of the process", pid, name, fs.ErrPermission)
	case err != nil:
		return "", gone(pid, err)
	}
	var names []string
	for _, d := range p.DeviceNamespaces {
		file := d.Path
		if file == "" {
			file = "/proc/self/ns/net"
		}
		if ours, err := os.Stat(file); err == nil && os.SameFile(ours, theirs) {
			return d.Name, nil
		}
		names = append(names, d.Name)
	}
	return "", fmt.Errorf("process %d (%s) is in a network namespace that the policy does not name (it names %s): nothing of it holds there; declare it under deviceNamespaces as {path: %s}",
		pid, name, strings.Join(names, ", "), path.Join("/proc", fmt.Sprint(pid), "ns/net"))
}

// gone is the error of a process that can't be read.
func gone(pid int, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("there is no process %d, or it has ended", pid)
	}
	return err
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
