// Package sockdiag lists the TCP and UDP sockets of a network namespace with
// the cgroups that they were created in, and closes single ones. It speaks
// sock_diag(7).
package sockdiag

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Socket is what the kernel tells about a socket.
type Socket struct {
	Protocol  Protocol
	Family    uint8 // unix.AF_INET or unix.AF_INET6
	State     State
	Local     netip.AddrPort // an IPv6 socket that speaks IPv4 has IPv4 addresses here
	Remote    netip.AddrPort // unspecified, port 0, if the socket is not connected
	V6Only    bool           // listening or unbound IPv6 sockets: no IPv4 (IPV6_V6ONLY)
	Multipath bool           // TCP: a subflow of an MPTCP socket, as Go's listeners are; see Destroy
	Interface uint32         // index of the device that the socket is bound to, or 0
	CgroupID  uint64         // id of the cgroup that it was created in; see List for those with 0
	UID       uint32
	Inode     uint32 // as in /proc/PID/fd: "socket:[inode]"; 0 if no descriptor refers to it
	Cookie    uint64 // SO_COOKIE: never used again before a reboot
}

// String returns "tcp listen 127.0.0.1:80 0.0.0.0:0".
func (s Socket) String() string {
	return fmt.Sprintf("%s %s %s %s", s.Protocol, s.State, s.Local, s.Remote)
}

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that are listed.
const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

// String returns "tcp" or "udp", as in the policy language.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	default:
		return fmt.Sprintf("protocol %d", uint8(p))
	}
}

// State is the state of a TCP socket (include/net/tcp_states.h). A UDP socket
// is Established if it is connected, and Closed otherwise.
type State uint8

// The states.
const (
	Established State = 1 + iota
	SynSent
	SynReceived
	FinWait1
	FinWait2
	TimeWait
	Closed
	CloseWait
	LastAck
	Listen
	Closing
	NewSynReceived
	BoundInactive // bound, neither listening nor connected; Linux 6.8
)

// String returns the state in the words of ss(8).
func (s State) String() string {
	names := [...]string{Established: "established", SynSent: "syn-sent", SynReceived: "syn-recv", FinWait1: "fin-wait-1",
		FinWait2: "fin-wait-2", TimeWait: "time-wait", Closed: "unconnected", CloseWait: "close-wait", LastAck: "last-ack",
		Listen: "listen", Closing: "closing", NewSynReceived: "syn-recv", BoundInactive: "bound"}
	if int(s) < len(names) && names[s] != "" {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}
