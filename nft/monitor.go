package nft

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Monitor hears of every commit to the tables of a network namespace. One
// goroutine at a time may call Receive; Close and SetDeadline may be called by
// any other meanwhile.
type Monitor struct {
	sock    *socket
	closed  atomic.Bool
	changes []Change
	events  []Event
}

// Event is a commit.
type Event struct {
	Generation
	// Port is the socket that made it, see [Conn.Port]. The PID of its
	// generation is that of a thread.
	Port uint32
	// Changes are what it did to tables of family inet, in order.
	Changes []Change
	// Lost is set if the kernel dropped events because they were not received
	// fast enough: anything may have changed, and nothing else is known.
	Lost bool
}

// Change is a change of one object, or of several of a kind in the same place.
type Change struct {
	Verb  Verb   // VerbAdd or VerbDelete
	Kind  string // table, chain, rule, set, element
	Table string
	Name  string // of the chain or set, for rules and elements too; "" for tables
	Count int    // how many rules or elements, one after another
}

// String returns the change as "add 9 rules to chain web", without the table.
func (c Change) String() string {
	what := c.Kind
	if c.Count > 1 {
		what = fmt.Sprintf("%d %ss", c.Count, c.Kind)
	}
	in := "to"
	if c.Verb == VerbDelete {
		in = "of"
	}
	switch c.Kind {
	case "rule":
		what += " " + in + " chain"
	case "element":
		what += " " + in + " set"
	}
	return strings.TrimSpace(c.Verb.String() + " " + what + " " + c.Name)
}

// Touched returns the changes of a table.
func (e *Event) Touched(table string) []Change {
	var changes []Change
	for _, c := range e.Changes {
		if c.Table == table {
			changes = append(changes, c)
		}
	}
	return changes
}

// monitorBuffer is the limit of events that wait to be received.
const monitorBuffer = 32 << 20

// OpenMonitor subscribes to the commits of a network namespace, given as for
// [Open]. It needs CAP_NET_ADMIN. What is committed after it has returned is
// heard of, but for what the socket with the port except commits; 0: by all.
func OpenMonitor(netnsFD int, except uint32) (*Monitor, error) {
	s, err := openSocket(netnsFD, 0)
	if err != nil {
		return nil, err
	}
	s.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, monitorBuffer)
	if except != 0 {
		err = s.ignore(except)
	}
	if err != nil {
		s.nl.Close()
		return nil, err
	}
	if err := s.nl.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		s.nl.Close()
		return nil, fmt.Errorf("nft: subscribe to nftables: %w", err)
	}
	return &Monitor{sock: s}, nil
}

// ignore has the kernel not deliver what a socket of a port gave rise to: that
// would wake a thread in the middle of each commit. All messages of a datagram
// are of one commit, and have its port in their headers (nlmsg_pid).
func (s *socket) ignore(port uint32) error {
	const pid = 12
	be := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port)) // loads are big-endian
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: pid},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: be, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
	}
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("attach a filter to netlink", err)
}

// Close closes the monitor. A Receive that waits returns with os.ErrClosed.
func (m *Monitor) Close() error {
	m.closed.Store(true)
	return m.sock.nl.Close()
}

// SetDeadline makes Receive return with os.ErrDeadlineExceeded from then on; the
// zero time takes the deadline away.
func (m *Monitor) SetDeadline(t time.Time) error { return m.sock.nl.SetReadDeadline(t) }

// Receive waits for the next commit. It returns os.ErrClosed or
// os.ErrDeadlineExceeded through errors.Is, and may be called again after the
// latter.
func (m *Monitor) Receive() (Event, error) {
	for len(m.events) == 0 {
		if err := m.read(); err != nil {
			return Event{}, err
		}
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e, nil
}

// read waits for one datagram and takes it apart.
func (m *Monitor) read() error {
	var n int
	var err error
	if cerr := m.sock.raw.Read(func(fd uintptr) bool {
		n, err = m.sock.recv(int(fd))
		return err != unix.EAGAIN
	}); cerr != nil {
		if m.closed.Load() {
			cerr = os.ErrClosed
		}
		return fmt.Errorf("nft: receive event: %w", cerr)
	}
	switch err {
	case nil:
		return eachMessage(m.sock.buf[:n], m.message)
	case unix.ENOBUFS, unix.EMSGSIZE:
		m.changes = nil
		m.events = append(m.events, Event{Lost: true})
		return nil
	}
	return os.NewSyscallError("receive from netlink", err)
}

// notified says what the messages of notifications are about, and under which
// attributes they name the table and the object.
var notified = map[uint16]struct {
	verb        Verb
	kind        string
	table, name uint16
}{
	unix.NFT_MSG_NEWTABLE:   {VerbAdd, "table", unix.NFTA_TABLE_NAME, 0},
	unix.NFT_MSG_DELTABLE:   {VerbDelete, "table", unix.NFTA_TABLE_NAME, 0},
	unix.NFT_MSG_NEWCHAIN:   {VerbAdd, "chain", unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME},
	unix.NFT_MSG_DELCHAIN:   {VerbDelete, "chain", unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME},
	unix.NFT_MSG_NEWRULE:    {VerbAdd, "rule", unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN},
	unix.NFT_MSG_DELRULE:    {VerbDelete, "rule", unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN},
	unix.NFT_MSG_NEWSET:     {VerbAdd, "set", unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME},
	unix.NFT_MSG_DELSET:     {VerbDelete, "set", unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME},
	unix.NFT_MSG_NEWSETELEM: {VerbAdd, "element", unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET},
	unix.NFT_MSG_DELSETELEM: {VerbDelete, "element", unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET},
}

// message reads one notification: those of a commit's changes come first, and
// then the one with its generation.
func (m *Monitor) message(msg *message) error {
	if msg.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || len(msg.data) < nfgenSize {
		return nil
	}
	if msg.typ == nftType(unix.NFT_MSG_NEWGEN) {
		g, err := decodeGeneration(msg.attrs())
		if err != nil {
			return err
		}
		m.events = append(m.events, Event{Generation: g, Port: msg.port, Changes: m.changes})
		m.changes = nil
		return nil
	}
	about, ok := notified[msg.typ&0xff]
	if !ok || msg.data[0] != nfprotoInet {
		return nil
	}
	c := Change{Verb: about.verb, Kind: about.kind, Count: 1}
	a := msg.attrs()
	for a.next() {
		switch a.typ {
		case about.table:
			c.Table = a.str()
		case about.name:
			c.Name = a.str()
		}
	}
	if last := len(m.changes) - 1; last >= 0 {
		l := &m.changes[last]
		if l.Verb == c.Verb && l.Kind == c.Kind && l.Table == c.Table && l.Name == c.Name {
			l.Count++
			return a.err()
		}
	}
	m.changes = append(m.changes, c)
	return a.err()
}
