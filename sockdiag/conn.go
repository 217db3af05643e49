package sockdiag

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a sock_diag socket in one network namespace. Its methods are safe
// for concurrent use, one at a time.
type Conn struct{ netlink *netlink.Conn }

// Dial opens a Conn in the network namespace that is open as netns; 0 is that
// of the calling thread. The descriptor is not needed any more afterwards.
func Dial(netns int) (*Conn, error) {
	// The kernel sends as much at once as the receiver's buffer takes, 32 KiB at most.
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: netns, MessageBufferSize: 64 << 10})
	if err != nil {
		return nil, fmt.Errorf("open a sock_diag socket: %w", err)
	}
	return &Conn{c}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.netlink.Close() }

// List returns the TCP and UDP sockets of the network namespace, of both
// families. MPTCP sockets are in it by their subflows.
//
// Sockets come and go while the list is made: one that was there all the time
// is in it, one that was not may be. CgroupID is 0 for those that belong to no
// cgroup yet or any more: connections whose handshake is not finished
// (SynReceived; they will be their listener's) and TimeWait. Before Linux 5.9
// it is 0 for all.
func (c *Conn) List() ([]Socket, error) {
	var sockets []Socket
	for _, p := range []Protocol{TCP, UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			messages, err := c.netlink.Execute(dumpRequest(p, family))
			if err != nil {
				return nil, fmt.Errorf("list %s sockets: %w", p, err)
			}
			for _, m := range messages {
				if m.Header.Type != unix.SOCK_DIAG_BY_FAMILY {
					continue
				}
				s, err := parseSocket(p, m.Data)
				if err != nil {
					return nil, fmt.Errorf("list %s sockets: %w", p, err)
				}
				sockets = append(sockets, s)
			}
		}
	}
	return sockets, nil
}

// Destroy closes a socket that List returned, from outside, as `ss -K` does
// (SOCK_DESTROY). A TCP connection is reset: both ends see ECONNRESET or
// ECONNABORTED; a listener is closed. A connected UDP socket sees
// ECONNABORTED once and is not connected any more; an unconnected one sees
// the same but keeps its local address and goes on.
//
// Of an MPTCP connection the subflow is cut, and no data passes any more, but
// its ends are only told after net.mptcp.close_timeout (60 s); an MPTCP
// listener can't be destroyed. Connections with a plain TCP peer are plain,
// whatever the listener is.
//
// It needs CAP_NET_ADMIN. The error wraps [fs.ErrNotExist] if there is no such
// socket any more, and [errors.ErrUnsupported] if the kernel was built without
// CONFIG_INET_DIAG_DESTROY or can't destroy a socket of this kind.
func (c *Conn) Destroy(s Socket) error {
	_, err := c.netlink.Execute(destroyRequest(s))
	if s.Multipath && s.State == Listen && errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("the kernel can't destroy MPTCP listeners: %w", errors.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("destroy socket %s: %w", s, err)
	}
	return nil
}
