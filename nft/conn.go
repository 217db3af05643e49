package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a netlink socket to the nftables of one network namespace. It is meant
// to be kept: a commit on a socket that is closed behind it waits for the
// kernel's grace period, a thousand times longer than the commit.
//
// Its methods may be called by several goroutines, and take turns.
type Conn struct {
	mu      sync.Mutex
	sock    *socket
	seq     uint32
	out     wire
	parts   []part
	scratch []expr
}

// Sizes of the socket's buffers in the kernel. Answers to a commit queue up
// before the first can be read, so the limit for them is high; it costs nothing
// until it is used.
const (
	receiveBuffer = 8 << 20
	sendBuffer    = 4 << 20
)

// Open opens a socket in a network namespace, given by an open file of it (as
// from /run/netns or netns.GetFromPath); 0 or -1 is the calling thread's. The
// descriptor is not needed afterwards. It needs CAP_NET_ADMIN in the user
// namespace that owns the network namespace, and CAP_SYS_ADMIN to enter it.
//
// Close the Conn after use. A table with [TableOwner] loses its owner then, and
// without [TablePersist] the table too.
func Open(netnsFD int) (*Conn, error) {
	s, err := openSocket(netnsFD, 0)
	if err != nil {
		return nil, err
	}
	return &Conn{sock: s}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.sock.nl.Close() }

// Port returns the netlink port of the socket, which tells its commits from
// those of other sockets of the network namespace.
func (c *Conn) Port() uint32 { return c.sock.port }

// Generation is a state of all tables of a network namespace: each commit, by
// anybody, makes a new one.
type Generation struct {
	ID uint32
	// PID and Process are the thread that made it and its name, where it is known:
	// in events of a [Monitor]. In answers to [Conn.Generation] it is the asking thread.
	PID     uint32
	Process string
}

// Generation returns the kernel's present generation.
func (c *Conn) Generation() (Generation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation()
}

func (c *Conn) generation() (Generation, error) {
	var g Generation
	err := c.get(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil, func(a attrs) error {
		var err error
		g, err = decodeGeneration(a)
		return err
	})
	if err != nil {
		return g, fmt.Errorf("nft: get generation: %w", err)
	}
	return g, nil
}

func decodeGeneration(a attrs) (Generation, error) {
	var g Generation
	for a.next() {
		switch a.typ {
		case unix.NFTA_GEN_ID:
			g.ID = a.u32()
		case unix.NFTA_GEN_PROC_PID:
			g.PID = a.u32()
		case unix.NFTA_GEN_PROC_NAME:
			g.Process = a.str()
		}
	}
	return g, a.err()
}

// nftType returns the type of a message of nftables.
func nftType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// get asks for one object and hands its attributes to read.
func (c *Conn) get(msg uint16, family uint8, request func(*wire), read func(attrs) error) error {
	c.request(msg, 0, family, request)
	if err := c.sock.send(c.out.b); err != nil {
		return err
	}
	for {
		done := false
		err := c.sock.receive(func(m *message) error {
			if m.seq != c.seq || done {
				return nil
			}
			done = true
			if m.typ == unix.NLMSG_ERROR {
				return m.errno()
			}
			return read(m.attrs())
		})
		if err != nil || done {
			return err
		}
	}
}

// errInterrupted is the error of a dump during which the ruleset changed.
var errInterrupted = errors.New("nft: dump was interrupted by a change")

// dump asks for a list of objects and hands the attributes of each to read.
func (c *Conn) dump(msg uint16, request func(*wire), read func(attrs) error) error {
	c.request(msg, unix.NLM_F_DUMP, nfprotoInet, request)
	if err := c.sock.send(c.out.b); err != nil {
		return err
	}
	interrupted := false
	var failed error
	for done := false; !done; {
		err := c.sock.receive(func(m *message) error {
			if m.seq != c.seq || done {
				return nil
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				if err := m.errno(); failed == nil {
					failed = err
				}
			default:
				if failed == nil {
					failed = read(m.attrs())
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if failed == nil && interrupted {
		failed = errInterrupted
	}
	return failed
}

// request writes a message that asks for something to the send buffer.
func (c *Conn) request(msg, flags uint16, family uint8, attrs func(*wire)) {
	c.seq++
	c.out.b = c.out.b[:0]
	at := c.out.message(nftType(msg), flags, c.seq, family, 0)
	if attrs != nil {
		attrs(&c.out)
	}
	c.out.end(at)
}

// socket is a netlink socket read and written without waiting: the kernel
// answers before a send returns.
type socket struct {
	nl   *netlink.Conn
	raw  syscall.RawConn
	sndb int
	port uint32 // nl_pid of netlink(7)
	buf  []byte
}

func openSocket(netnsFD int, groups uint32) (*socket, error) {
	if netnsFD < 0 {
		netnsFD = 0
	}
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netnsFD, Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("nft: open netlink socket: %w", err)
	}
	raw, err := nl.SyscallConn()
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("nft: open netlink socket: %w", err)
	}
	s := &socket{nl: nl, raw: raw, buf: make([]byte, 64<<10)}
	// Old kernels don't know the options, and errors come without details then.
	_ = nl.SetOption(netlink.ExtendedAcknowledge, true)
	_ = nl.SetOption(netlink.CapAcknowledge, true)
	s.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	s.growSend(sendBuffer)
	if err := s.findPort(); err != nil {
		nl.Close()
		return nil, fmt.Errorf("nft: open netlink socket: %w", err)
	}
	return s, nil
}

// findPort asks which port the kernel gave to the socket.
func (s *socket) findPort() error {
	var addr unix.Sockaddr
	var err error
	if cerr := s.raw.Control(func(fd uintptr) { addr, err = unix.Getsockname(int(fd)) }); cerr != nil {
		return cerr
	}
	if a, ok := addr.(*unix.SockaddrNetlink); ok {
		s.port = a.Pid
	}
	return os.NewSyscallError("getsockname", err)
}

// setBuffer sizes a buffer, beyond the system's limit if that is permitted.
func (s *socket) setBuffer(force, plain, size int) {
	_ = s.raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, size) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, plain, size)
		}
	})
}

// growSend makes the send buffer hold a message of n bytes.
func (s *socket) growSend(n int) {
	if n > s.sndb {
		s.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, n)
		s.sndb = n
	}
}

// send sends to the kernel.
func (s *socket) send(b []byte) error {
	s.growSend(len(b) + 4096)
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		for {
			_, err = unix.Write(int(fd), b)
			if err != unix.EINTR {
				return
			}
		}
	}); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("send to netlink", err)
}

// errNoAnswer is the error of a receive with nothing to be received.
var errNoAnswer = errors.New("nft: kernel did not answer")

// receive reads one datagram and hands its messages to each.
func (s *socket) receive(each func(*message) error) error {
	var n int
	var err error
	if cerr := s.raw.Control(func(fd uintptr) { n, err = s.recv(int(fd)) }); cerr != nil {
		return cerr
	}
	if err == unix.EAGAIN {
		return errNoAnswer
	}
	if err != nil {
		return os.NewSyscallError("receive from netlink", err)
	}
	return eachMessage(s.buf[:n], each)
}

// recv reads one datagram into the buffer, and makes the buffer larger for the
// next if this one was cut off.
func (s *socket) recv(fd int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n > len(s.buf) {
			s.buf = make([]byte, n)
			return 0, unix.EMSGSIZE
		}
		return n, err
	}
}

// message is a netlink message that was received. It is valid until the next
// receive.
type message struct {
	typ, flags uint16
	seq, port  uint32
	data       []byte
}

// nfnetlink's header in front of the attributes (struct nfgenmsg).
const nfgenSize = 4

// attrs returns the attributes of a message of nfnetlink.
func (m *message) attrs() attrs {
	if len(m.data) < nfgenSize {
		return attrs{bad: true}
	}
	return attrs{rest: m.data[nfgenSize:]}
}

// errno returns the error that an answer carries at its front.
func (m *message) errno() error {
	if len(m.data) < 4 {
		return errMalformed
	}
	if n := int32(binary.NativeEndian.Uint32(m.data)); n < 0 {
		return syscall.Errno(-n)
	}
	return nil
}

// eachMessage takes a datagram apart. The message is that of the next call too.
func eachMessage(b []byte, each func(*message) error) error {
	var m message
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return errMalformed
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return errMalformed
		}
		m = message{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			port:  binary.NativeEndian.Uint32(b[12:]),
			data:  b[unix.NLMSG_HDRLEN:n],
		}
		if err := each(&m); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
