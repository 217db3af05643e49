package compiler

import (
	"net/netip"

	"github.com/sockns/sockns/model"
)

// Facts is what the compiler knows of the host.
type Facts struct {
	Devices map[string]DeviceFacts // the device namespaces that exist, by name
	Members []Member               // the cgroups that exist
	Missing []Missing
	Doors   []Door
	// Instance tells apart the tables of two programs in two network
	// namespaces of one machine: the cookie of the host device namespace.
	Instance uint64
	// Syscalls says that the syscall tier answers bind(2) and connect(2).
	Syscalls bool
	// Steers says that it steers TCP listeners (syscalls.Cast).
	Steers bool
}

// DeviceFacts is what the compiler knows of one device namespace.
type DeviceFacts struct {
	// Addresses are the local addresses, loopback aside.
	Addresses []netip.Addr
	// EphemeralFirst and EphemeralLast bound the ports that the kernel picks
	// (net.ipv4.ip_local_port_range). Zero: the kernel's default.
	EphemeralFirst, EphemeralLast uint16
	// Cookie identifies the network namespace (SO_NETNS_COOKIE). With Locals,
	// all its local addresses, it is for the syscall tier alone.
	Cookie uint64
	Locals []netip.Addr
}

// Ephemeral returns the ports that the kernel picks.
func (d DeviceFacts) Ephemeral() model.PortRange {
	if d.EphemeralLast == 0 {
		return model.PortRange{First: 32768, Last: 60999}
	}
	return model.PortRange{First: d.EphemeralFirst, Last: d.EphemeralLast}
}

// Member is a cgroup of a socket namespace.
type Member struct {
	Namespace string // name of a socket namespace, or of an instance (user/1000)
	Path      string // below the cgroup2 mount, absolute
	ID        uint64 // inode of the directory
	Level     int    // depth; a child of the root has 1
}

// Missing is a member that does not exist.
type Missing struct {
	Namespace string
	Member    model.Member
}

// Door is a cgroup whose unknown children are held until the kernel knows
// them, because a template will claim those that match.
type Door struct {
	Device    string
	Templates []string // whose pattern makes it a door
	Path      string
	ID        uint64
	Level     int
	Exempt    []Member // existing children that nobody claims; Namespace is empty
}
