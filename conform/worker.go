package conform

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// A worker is a process in one cgroup that makes sockets in all network
// namespaces of a machine, as it is told on its standard input. It is the
// test's own binary, started again with workerVariable set.
const workerVariable = "SOCKNS_CONFORM_WORKER"

// order is what a worker is told: to close what listens, to listen, or to try
// flows all at once.
type order struct {
	Close  bool
	Listen []socket
	Try    []try
}

// socket is a listening socket that answers with a name.
type socket struct {
	Device   int
	Protocol model.Protocol
	Address  netip.AddrPort
}

// try is a flow, and whether it is expected to get no answer, so that it
// needs not be waited for longer than answers take.
type try struct {
	Flow    Flow
	Silence bool
}

// answer is what became of each socket or try, in their order.
type answer struct{ Outcomes []string }

// Worker does what a worker does if this process is to be one, and says so.
func Worker() bool {
	text := os.Getenv(workerVariable)
	if text == "" {
		return false
	}
	if err := work(strings.Split(text, "\n")); !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// work enters the cgroup that is its first argument, - for none. The next is
// its name, the others are the files of network namespaces. It ends with an
// error, which is [io.EOF] once nobody has orders any more.
func work(args []string) error {
	if dir := args[0]; dir != "-" {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // it enters network namespaces
	netns := make([]int, len(args)-2)
	for i, path := range args[2:] {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		netns[i] = fd
	}
	server, err := newServer(args[1])
	if err != nil {
		return err
	}
	go server.serve()
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	c := &client{netns: netns, entered: -1}
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return err
		}
		var a answer
		if o.Close {
			server.close()
		}
		for _, l := range o.Listen {
			if err := c.enter(l.Device); err != nil {
				return err
			}
			a.Outcomes = append(a.Outcomes, outcome(server.listen(l)))
		}
		if len(o.Try) > 0 {
			if a.Outcomes, err = c.try(o.Try); err != nil {
				return err
			}
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func outcome(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return Ok
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// newSocket makes a socket that does not block, for one family only.
func newSocket(p model.Protocol, addr netip.Addr) (int, error) {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	if addr.Is4() {
		family = unix.AF_INET
	}
	if p == model.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	return fd, err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// reset has close(2) send a reset, so that no port stays in TIME-WAIT.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// server answers on all listening sockets of a worker with its name.
type server struct {
	name  []byte
	epoll int
	open  []int
}

func newServer(name string) (*server, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &server{name: []byte(name), epoll: fd}, err
}

const datagrams = 1 << 30 // in the data of an event: the socket is one of UDP

func (s *server) listen(l socket) error {
	fd, err := newSocket(l.Protocol, l.Address.Addr())
	if err != nil {
		return err
	}
	data := int32(fd)
	if err = unix.Bind(fd, sockaddr(l.Address)); err == nil && l.Protocol == model.TCP {
		err = unix.Listen(fd, 4096)
	} else {
		data |= datagrams
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	s.open = append(s.open, fd)
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: data})
}

func (s *server) close() {
	for _, fd := range s.open {
		_ = unix.Close(fd)
	}
	s.open = nil
}

func (s *server) serve() {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			fmt.Fprintln(os.Stderr, "epoll:", err)
			os.Exit(1)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd&datagrams != 0 {
				s.datagrams(int(e.Fd &^ datagrams))
			} else {
				s.connections(int(e.Fd))
			}
		}
	}
}

func (s *server) connections(fd int) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_, _ = unix.Write(c, s.name)
		reset(c) // what was written arrives before the reset
	}
}

func (s *server) datagrams(fd int) {
	b := make([]byte, 16)
	for {
		_, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return
		}
		_ = unix.Sendto(fd, s.name, 0, from) // a refusal is the asker's to see
	}
}
