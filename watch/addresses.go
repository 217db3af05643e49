package watch

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Addresses watches the addresses of a network namespace (RTMGRP_IPV4_IFADDR
// and RTMGRP_IPV6_IFADDR of rtnetlink(7)). Its methods are safe for concurrent
// use.
type Addresses struct {
	conn    *netlink.Conn
	again   again
	closing atomic.Bool
	close   func() error

	mu  sync.Mutex
	err error
}

// OpenAddresses watches the network namespace that is open as netns; 0 is
// that of the calling thread. The descriptor is not needed any more afterwards.
func OpenAddresses(netns int) (*Addresses, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		NetNS:  netns,
		Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return nil, wrap("addresses", err)
	}
	a := &Addresses{conn: conn, again: make(again, 1)}
	closed := make(chan struct{})
	a.close = sync.OnceValue(func() error {
		a.closing.Store(true)
		err := a.conn.Close()
		<-closed
		return err
	})
	go func() {
		defer close(closed)
		a.loop()
	}()
	return a, nil
}

// Events returns a channel that says "look again" once for all changes since
// the last time it said so. It is never closed.
func (a *Addresses) Events() <-chan struct{} { return a.again }

// Err returns why watching has ended, or nil while it goes on.
func (a *Addresses) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Close ends the watching.
func (a *Addresses) Close() error { return a.close() }

func (a *Addresses) loop() {
	for {
		_, err := a.conn.Receive()
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // ENOBUFS: there were more than fit
		case a.closing.Load():
			return
		default:
			a.mu.Lock()
			a.err = wrap("addresses", err)
			a.mu.Unlock()
			a.again.set()
			return
		}
		a.again.set()
	}
}
