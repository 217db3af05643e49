package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long a call may take that is not answered.
const silence = 400 * time.Millisecond

// prepared are sockets for later calls, by kind and family.
var prepared = make(map[string][]int)

// call makes one system call on a new socket and returns ok, an errno or
// silence. Kind is bind, connect or sendto; tcp, udp or mptcp; and any of
// nonblock and mapped (an IPv4 address in an IPv6 socket), joined by "-".
// prepare instead of the call makes the socket for one that is made later, with
// prepared at the end of its kind.
func call(kind, addr string) string {
	words := strings.Split(kind, "-")
	has := func(w string) bool { return strings.Contains(kind, w) }
	to := netip.MustParseAddrPort(addr)
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if to.Addr().Is4() && !has("mapped") {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	typ, proto := unix.SOCK_STREAM, 0
	switch words[1] {
	case "udp":
		typ = unix.SOCK_DGRAM
	case "mptcp":
		proto = unix.IPPROTO_MPTCP
	}
	if has("nonblock") {
		typ |= unix.SOCK_NONBLOCK
	}
	fd, err := -1, error(nil)
	key := fmt.Sprint(family, typ, proto)
	if list := prepared[key]; has("prepared") && len(list) > 0 {
		fd, prepared[key] = list[0], list[1:]
	} else if fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto); err != nil {
		return "socket " + errnoName(err)
	}
	if words[0] == "prepare" {
		prepared[key] = append(prepared[key], fd)
		return "ok"
	}
	defer func() { _ = unix.Close(fd) }()
	if family == unix.AF_INET6 && !has("mapped") {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	limit := unix.NsecToTimeval(silence.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	switch words[0] {
	case "bind":
		return errnoName(unix.Bind(fd, sa))
	case "sendto":
		return errnoName(unix.Sendto(fd, []byte("?"), 0, sa))
	}
	err = unix.Connect(fd, sa)
	interrupted := errors.Is(err, unix.EINTR) // by the Go runtime; it goes on connecting
	if !errors.Is(err, unix.EINPROGRESS) && !interrupted {
		return errnoName(err)
	}
	if !has("nonblock") && !interrupted {
		return "silence" // SO_SNDTIMEO passed
	}
	var n int
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(silence.Milliseconds()))
	}
	if err != nil {
		return errnoName(err)
	}
	if n == 0 {
		return "silence"
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return errnoName(err)
}

// flood sends datagrams from one socket and returns how many calls failed.
func flood(addr, times string) int {
	to := netip.MustParseAddrPort(addr)
	n, err := strconv.Atoi(times)
	if err != nil {
		panic(err)
	}
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	failed := 0
	for range n {
		if unix.Sendto(fd, []byte("?"), 0, sa) != nil {
			failed++
		}
	}
	return failed
}

func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return "ok"
}
