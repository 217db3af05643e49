// Command actor is a process of the tests and of the quickstart: it enters a
// cgroup and a network namespace, and listens or dials there.
//
//	actor listen CGROUP NETNS tcp|udp ADDR NAME    prints ok or an errno, answers with NAME
//	actor dial CGROUP NETNS tcp|udp ADDR [FROM]    prints who answered, an errno, or silence
//
// CGROUP is a directory of cgroupfs or - for none, NETNS the file of a network
// namespace.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is longer than the 1.0 s after which IPv6 shows an ICMP refusal.
const patience = 2500 * time.Millisecond

func main() {
	if len(os.Args) < 6 {
		fmt.Fprintln(os.Stderr, "usage: actor listen|dial CGROUP NETNS tcp|udp ADDR [NAME|FROM]")
		os.Exit(2)
	}
	verb, cgroup, netns, proto, addr := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	runtime.LockOSThread() // sockets belong to the namespace of the thread that makes them
	if err := enter(cgroup, netns); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	extra := ""
	if len(os.Args) > 6 {
		extra = os.Args[6]
	}
	if verb == "listen" {
		listen(proto, addr, extra)
	} else {
		fmt.Println(dial(proto, addr, extra))
	}
}

func enter(cgroup, netns string) error {
	if cgroup != "-" {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	f, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// family returns the network for package net, so that 0.0.0.0 is IPv4 only.
func family(proto, addr string) string {
	if strings.HasPrefix(addr, "[") {
		return proto + "6"
	}
	return proto + "4"
}

func listen(proto, addr, name string) {
	if proto == "udp" {
		c, err := net.ListenPacket(family(proto, addr), addr)
		fmt.Println(outcome(err))
		if err != nil {
			return
		}
		b := make([]byte, 100)
		for {
			_, from, err := c.ReadFrom(b)
			if err == nil {
				_, _ = c.WriteTo([]byte(name), from) // a refusal is the asker's to see
			}
		}
	}
	l, err := net.Listen(family(proto, addr), addr)
	fmt.Println(outcome(err))
	if err != nil {
		return
	}
	for {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte(name))
			c.Close()
		}
	}
}

func dial(proto, addr, from string) string {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		ip := netip.MustParseAddr(from).AsSlice()
		if proto == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: ip}
		} else {
			d.LocalAddr = &net.TCPAddr{IP: ip}
		}
	}
	c, err := d.Dial(family(proto, addr), addr)
	if err != nil {
		return outcome(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if proto == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return outcome(err)
		}
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return outcome(err)
	}
	return string(b[:n])
}

// outcome names an error as applications see it.
func outcome(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silence"
	}
	return err.Error()
}
