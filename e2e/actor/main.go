// Command actor is a process of the tests and of the quickstart: it enters a
// cgroup and a network namespace, and listens or dials there.
//
//	actor listen CGROUP NETNS tcp|udp ADDR NAME    prints ok or an errno, answers with NAME
//	actor http CGROUP NETNS ADDR NAME              a Go server with its default listener
//	actor call CGROUP NETNS                        reads KIND ADDR lines, answers each with ok or an errno
//	actor hold CGROUP NETNS tcp|udp ADDR           prints ok or an errno; open or closed for each line that it reads
//	actor flood CGROUP NETNS ADDR N                sends N datagrams, prints how many the call refused
//	actor exec CGROUP NETNS COMMAND...             becomes any other program
//	actor dial CGROUP NETNS tcp|udp ADDR [FROM [MARK]]   prints who answered, an errno, or silence; FROM may be ""
//
// CGROUP is a directory of cgroupfs or - for none, NETNS the file of a network
// namespace.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is longer than the 1.0 s after which IPv6 shows an ICMP refusal.
const patience = 2500 * time.Millisecond

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: actor listen|dial|http|call|hold|flood|exec CGROUP NETNS ...")
		os.Exit(2)
	}
	verb, cgroup, netns, args := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	runtime.LockOSThread() // sockets belong to the namespace of the thread that makes them
	if err := enter(cgroup, netns); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	args = append(args, "", "")
	if verb == "dial" {
		args = append(args, "")
	}
	switch verb {
	case "listen":
		listen(args[0], args[1], args[2])
	case "http":
		l, err := net.Listen("tcp", args[0])
		fmt.Println(outcome(err))
		if err == nil {
			_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, args[1]) }))
		}
	case "call":
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			kind, addr, _ := strings.Cut(lines.Text(), " ")
			fmt.Println(call(kind, addr))
		}
	case "hold":
		hold(args[0], args[1])
	case "flood":
		fmt.Println(flood(args[0], args[1]))
	case "exec":
		args = args[:len(args)-2]
		path, err := exec.LookPath(args[0])
		if err == nil {
			err = syscall.Exec(path, args, os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Println(dial(args[0], args[1], args[2], args[3]))
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
		c, err := l.Accept()
		if err != nil {
			return // somebody closed it
		}
		_, _ = c.Write([]byte(name))
		go func() {
			_, _ = io.Copy(io.Discard, c) // until the peer goes
			c.Close()
		}()
	}
}

// hold has a connection, and says whether it is still there.
func hold(proto, addr string) {
	c, err := net.Dial(family(proto, addr), addr)
	fmt.Println(outcome(err))
	if err != nil {
		return
	}
	b := make([]byte, 100)
	if proto == "tcp" {
		_, _ = c.Read(b) // the server's name
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		_ = c.SetReadDeadline(time.Now().Add(silence))
		if _, err := c.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
			fmt.Println("open")
		} else {
			fmt.Println("closed")
		}
	}
}

func dial(proto, addr, from, mark string) string {
	d := net.Dialer{Timeout: patience}
	if mark != "" {
		n, err := strconv.ParseUint(mark, 0, 32)
		if err != nil {
			return err.Error()
		}
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(n))
			}), err)
		}
	}
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
