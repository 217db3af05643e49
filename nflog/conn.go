package nflog

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// headerRange is how much of a packet is copied: an IPv6 header, some of
	// its extensions, and the ports.
	headerRange = 128
	// queueThreshold and queueTimeout bound how many packets wait in the kernel
	// for one another, and how long (hundredths of a second).
	queueThreshold = 64
	queueTimeout   = 5
	receiveBuffer  = 2 << 20
	controlTimeout = 5 * time.Second
)

// Conn receives from one group. One goroutine at a time may call Receive;
// Close may be called by another meanwhile.
type Conn struct {
	netlink *netlink.Conn
	closed  atomic.Bool
	waiting []Packet
}

// Open listens to a group in the network namespace that is open as netns; 0 is
// that of the calling thread. It needs CAP_NET_ADMIN there. A group has one
// listener: errors.Is(err, unix.EBUSY) if there is another.
func Open(netns int, group uint16) (*Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket for group %d of nfnetlink_log: %w", group, err)
	}
	c := &Conn{netlink: nl}
	if err := c.configure(group); err != nil {
		nl.Close()
		return nil, fmt.Errorf("listen to group %d of nfnetlink_log: %w", group, err)
	}
	return c, nil
}

func (c *Conn) configure(group uint16) error {
	_ = c.netlink.SetReadBuffer(receiveBuffer) // as much as the system allows
	_ = c.netlink.SetDeadline(time.Now().Add(controlTimeout))
	for _, m := range configuration(group) {
		if _, err := c.netlink.Execute(m); err != nil {
			return err
		}
	}
	return c.netlink.SetDeadline(time.Time{})
}

// Close ends the listening. A Receive that waits returns with os.ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.netlink.Close()
}

// Receive waits for the next packet. What comes faster than it is received the
// kernel drops; what rules count tells how much that was.
func (c *Conn) Receive() (Packet, error) {
	for len(c.waiting) == 0 {
		messages, err := c.netlink.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if c.closed.Load() {
			return Packet{}, os.ErrClosed
		}
		if err != nil {
			return Packet{}, fmt.Errorf("receive from nfnetlink_log: %w", err)
		}
		for _, m := range messages {
			p, ok, err := parse(m)
			if err != nil {
				return Packet{}, err
			}
			if ok {
				c.waiting = append(c.waiting, p)
			}
		}
	}
	p := c.waiting[0]
	c.waiting = c.waiting[1:]
	return p, nil
}
