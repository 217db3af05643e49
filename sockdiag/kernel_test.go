package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// newNamespace makes a fresh network namespace with loopback up, and a Conn in it.
func newNamespace(t *testing.T) (*device.Namespace, *Conn) {
	t.Helper()
	roottest.Need(t)
	var n *device.Namespace
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with this goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = loopbackUp(); err == nil {
			n, err = device.Open(model.DeviceNamespace{Name: model.HostDevice})
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	c, err := Dial(n.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return n, c
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

// inCgroup runs fn while the process is in a cgroup of its own, and returns
// the cgroup's id. The cgroup is removed at once: sockets keep their id.
func inCgroup(t *testing.T, fn func() error) uint64 {
	t.Helper()
	tree, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/sockns-sockdiag-test-%d", os.Getpid())
	if err := os.Mkdir(tree.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	move := func(path string) {
		if err := os.WriteFile(filepath.Join(tree.Dir(path), "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	id, err := tree.ID(path)
	if err != nil {
		t.Fatal(err)
	}
	move(path)
	err = fn()
	move("/")
	if err := os.Remove(tree.Dir(path)); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// find returns the one socket that is listed with a local and a remote
// address, by the test process's own view of them.
func find(t *testing.T, c *Conn, p Protocol, state State, local, remote string) Socket {
	t.Helper()
	sockets, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	var found []Socket
	for _, s := range sockets {
		if s.Protocol == p && s.State == state && s.Local.String() == local && (remote == "" || s.Remote.String() == remote) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d sockets are %s %s %s %s among %v", len(found), p, state, local, remote, sockets)
	}
	return found[0]
}

func TestListTellsCgroups(t *testing.T) {
	n, c := newNamespace(t)
	if sockets, err := c.List(); err != nil || len(sockets) > 0 {
		t.Fatalf("a fresh network namespace has %v, %v", sockets, err)
	}
	listen := net.ListenConfig{}
	listen.SetMultipathTCP(false)
	var listener net.Listener
	var packets net.PacketConn
	inside := inCgroup(t, func() error {
		return n.Do(func() (err error) {
			if listener, err = listen.Listen(context.Background(), "tcp", "[::1]:4000"); err == nil {
				packets, err = listen.ListenPacket(context.Background(), "udp4", "127.0.0.1:4001")
			}
			return err
		})
	})
	defer listener.Close()
	defer packets.Close()
	var client, datagrams net.Conn
	err := n.Do(func() (err error) {
		if client, err = net.Dial("tcp", "[::1]:4000"); err == nil {
			datagrams, err = net.Dial("udp", "127.0.0.1:4001")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	defer datagrams.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	root, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	outside, err := root.ID("/")
	if err != nil {
		t.Fatal(err)
	}
	own := client.LocalAddr().String()
	for name, test := range map[string]struct {
		socket Socket
		want   uint64
		family uint8
	}{
		"listener":         {find(t, c, TCP, Listen, "[::1]:4000", "[::]:0"), inside, unix.AF_INET6},
		"accepted":         {find(t, c, TCP, Established, "[::1]:4000", own), inside, unix.AF_INET6},
		"client":           {find(t, c, TCP, Established, own, "[::1]:4000"), outside, unix.AF_INET6},
		"unconnected UDP":  {find(t, c, UDP, Closed, "127.0.0.1:4001", "0.0.0.0:0"), inside, unix.AF_INET},
		"connected UDP":    {find(t, c, UDP, Established, datagrams.LocalAddr().String(), "127.0.0.1:4001"), outside, unix.AF_INET},
		"other namespaces": {},
	} {
		if s := test.socket; s.CgroupID != test.want || s.Family != test.family || s.UID != 0 {
			t.Errorf("%s: %+v, want cgroup %d of family %d", name, s, test.want, test.family)
		}
	}
	s := find(t, c, TCP, Listen, "[::1]:4000", "")
	fd := rawFD(t, listener.(*net.TCPListener))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || uint64(s.Inode) != st.Ino {
		t.Errorf("inode %d, %v, want %d", s.Inode, err, st.Ino)
	}
	if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || cookie != s.Cookie {
		t.Errorf("cookie %d, %v, want %d", s.Cookie, err, cookie)
	}
	_, elsewhere := newNamespace(t)
	if sockets, err := elsewhere.List(); err != nil || len(sockets) > 0 {
		t.Errorf("another network namespace has %v, %v", sockets, err)
	}
}

func rawFD(t *testing.T, c syscall.Conn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(f uintptr) { fd = int(f) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// connect makes a listener, and a connection to it, in a network namespace.
func connect(t *testing.T, n *device.Namespace, address string, multipathListener, multipathClient bool) (net.Listener, net.Conn, net.Conn) {
	t.Helper()
	to := netip.MustParseAddrPort(address)
	if to.Addr().IsUnspecified() {
		to = netip.MustParseAddrPort("127.0.0.1:4000") // IPv4 on an IPv6 socket
	}
	var listener net.Listener
	var client net.Conn
	err := n.Do(func() (err error) {
		listen := net.ListenConfig{}
		listen.SetMultipathTCP(multipathListener)
		dial := net.Dialer{}
		dial.SetMultipathTCP(multipathClient)
		if listener, err = listen.Listen(context.Background(), "tcp", address); err == nil {
			client, err = dial.Dial("tcp", to.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close(); client.Close() })
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return listener, client, server
}

var tcpAddresses = []string{"127.0.0.1:4000", "[::1]:4000", "[::]:4000", "[::ffff:127.0.0.1]:4000"}

func TestDestroyConnection(t *testing.T) {
	for _, address := range tcpAddresses {
		for _, multipath := range []bool{false, true} { // a listener's, as Go makes them; the client is plain
			for _, side := range []string{"client", "server"} {
				t.Run(fmt.Sprintf("%s multipath %t %s", address, multipath, side), func(t *testing.T) {
					n, c := newNamespace(t)
					_, client, server := connect(t, n, address, multipath, false)
					end := map[string]net.Conn{"client": client, "server": server}[side]
					s := find(t, c, TCP, Established, end.LocalAddr().String(), end.RemoteAddr().String())
					if err := c.Destroy(s); err != nil {
						t.Fatal(err)
					}
					for name, end := range map[string]net.Conn{"client": client, "server": server} {
						end.SetDeadline(time.Now().Add(5 * time.Second))
						_, err := end.Read(make([]byte, 1))
						if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("%s is still connected: %v", name, err)
						}
					}
					if err := c.Destroy(s); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("second Destroy: %v, want one that is fs.ErrNotExist", err)
					}
				})
			}
		}
	}
}

func TestDestroyListener(t *testing.T) {
	for _, address := range tcpAddresses {
		t.Run(address, func(t *testing.T) {
			n, c := newNamespace(t)
			listener, client, _ := connect(t, n, address, false, false)
			if err := c.Destroy(find(t, c, TCP, Listen, netip.AddrPortFrom(netip.MustParseAddrPort(address).Addr().Unmap(), 4000).String(), "")); err != nil {
				t.Fatal(err)
			}
			listener.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := listener.Accept(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the listener still accepts: %v", err)
			}
			err := n.Do(func() error {
				again, err := net.DialTimeout("tcp", client.RemoteAddr().String(), time.Second)
				if err == nil {
					again.Close()
				}
				return err
			})
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connect to the destroyed listener: %v, want ECONNREFUSED", err)
			}
		})
	}
}

// TestDestroyMultipath: what the kernel can't do with MPTCP is said, and a
// subflow is cut although its ends are not told.
func TestDestroyMultipath(t *testing.T) {
	n, c := newNamespace(t)
	_, client, server := connect(t, n, "127.0.0.1:4000", true, true)
	if used, err := client.(*net.TCPConn).MultipathTCP(); err != nil || !used {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no MPTCP")
	}
	listener := find(t, c, TCP, Listen, "127.0.0.1:4000", "")
	if err := c.Destroy(listener); !listener.Multipath || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Destroy of MPTCP listener %+v: %v, want one that is errors.ErrUnsupported", listener, err)
	}
	flow := find(t, c, TCP, Established, client.LocalAddr().String(), client.RemoteAddr().String())
	if err := c.Destroy(flow); !flow.Multipath || err != nil {
		t.Fatalf("Destroy of MPTCP subflow %+v: %v", flow, err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Logf("write after the subflow is gone: %v", err)
	}
	server.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if n, _ := server.Read(make([]byte, 1)); n > 0 {
		t.Error("data passes after the subflow was destroyed")
	}
}

func TestDestroyUDP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:4001", "[::1]:4001"} {
		t.Run(address, func(t *testing.T) {
			n, c := newNamespace(t)
			var server net.PacketConn
			var client net.Conn
			err := n.Do(func() (err error) {
				if server, err = net.ListenPacket("udp", address); err == nil {
					client, err = net.Dial("udp", address)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			defer client.Close()
			if err := c.Destroy(find(t, c, UDP, Established, client.LocalAddr().String(), address)); err != nil {
				t.Fatal(err)
			}
			client.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("read of the destroyed socket: %v, want ECONNABORTED", err)
			}
			if _, err := client.Write([]byte("x")); !errors.Is(err, unix.EDESTADDRREQ) {
				t.Errorf("write to the destroyed socket: %v, want EDESTADDRREQ", err)
			}
			// An unconnected one is told too, but keeps what it has bound.
			bound := find(t, c, UDP, Closed, address, "")
			if err := c.Destroy(bound); err != nil {
				t.Fatal(err)
			}
			server.SetDeadline(time.Now().Add(5 * time.Second))
			if _, _, err := server.ReadFrom(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("read of the destroyed server: %v, want ECONNABORTED", err)
			}
			if after := find(t, c, UDP, Closed, address, ""); after != bound {
				t.Errorf("afterwards the socket is %+v, was %+v", after, bound)
			}
		})
	}
}

// TestDestroySparesSuccessors: the socket that has a destroyed one's
// addresses by now is another one.
func TestDestroySparesSuccessors(t *testing.T) {
	n, c := newNamespace(t)
	listen := func() (l net.Listener) {
		config := net.ListenConfig{}
		config.SetMultipathTCP(false)
		err := n.Do(func() (err error) {
			l, err = config.Listen(context.Background(), "tcp", "127.0.0.1:4000")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	old := listen()
	s := find(t, c, TCP, Listen, "127.0.0.1:4000", "")
	old.Close()
	defer listen().Close()
	if err := c.Destroy(s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Destroy of the old socket: %v, want one that is fs.ErrNotExist", err)
	}
	find(t, c, TCP, Listen, "127.0.0.1:4000", "")
}
