// Package device gathers facts about device namespaces: which network
// namespace a name stands for, its local addresses and its ephemeral ports.
// It changes nothing in them.
package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// Namespace is an open network namespace (network_namespaces(7)). It stays
// the same one, and alive, until Close, even if its name goes away or is given
// to another: compare Identity with that of a new Open to notice. Its methods
// are safe for concurrent use.
type Namespace struct {
	name     string // in the policy
	file     *os.File
	identity Identity
}

// Identity tells network namespaces apart; two names for one namespace have
// equal identities.
type Identity struct {
	Device, Inode uint64 // of the namespace's file; an inode number is used again after the namespace is gone
	Cookie        uint64 // SO_NETNS_COOKIE, as BPF has it: never used again before a reboot; 0 before Linux 5.14
}

// Open opens the network namespace that a policy's device namespace stands
// for. That of [model.HostDevice], which has no path, is the network namespace
// of the calling thread (of a goroutine that is not locked to a thread: the
// one that the process was started in).
//
// The error wraps [fs.ErrNotExist] if the name is not there, or is there but
// does not hold a network namespace, as it is for a moment while `ip netns
// add` runs.
func Open(d model.DeviceNamespace) (*Namespace, error) {
	path := d.Path
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("device namespace %s: %w", d.Name, err)
	}
	n := &Namespace{name: d.Name, file: file}
	if n.identity, err = n.identify(); err != nil {
		file.Close()
		return nil, fmt.Errorf("device namespace %s: %s: %w", d.Name, path, err)
	}
	return n, nil
}

// Name returns the name of the device namespace in the policy.
func (n *Namespace) Name() string { return n.name }

// FD returns the descriptor of the namespace, for setns(2). It is n's: it may
// not be closed, nor be used after n.Close.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// NetNS returns what netlink.Config.NetNS wants of a socket that the calling
// goroutine makes next: FD, or 0 if its thread is in the namespace, which
// takes no setns(2) and so no CAP_SYS_ADMIN.
func (n *Namespace) NetNS() int {
	var here, there unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &here) == nil && unix.Fstat(n.FD(), &there) == nil &&
		here.Dev == there.Dev && here.Ino == there.Ino {
		return 0
	}
	return n.FD()
}

// Identity returns what tells the namespace apart from others.
func (n *Namespace) Identity() Identity { return n.identity }

// Close releases the namespace.
func (n *Namespace) Close() error { return n.file.Close() }

func (n *Namespace) identify() (Identity, error) {
	if kind, err := unix.IoctlRetInt(n.FD(), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return Identity{}, fmt.Errorf("is not a network namespace (`ip netns add` makes one): %w", fs.ErrNotExist)
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.FD(), &st); err != nil {
		return Identity{}, err
	}
	id := Identity{Device: st.Dev, Inode: st.Ino}
	err := n.Do(func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		id.Cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			err = nil
		}
		return err
	})
	return id, err
}

// Do runs fn in the namespace, on a thread and a goroutine of its own, and
// returns its error. Sockets that fn makes belong to the namespace for good;
// files below /proc/sys/net that it opens are the namespace's too. What fn
// starts with `go` is elsewhere. It needs CAP_SYS_ADMIN unless the namespace
// is the one that the process is in.
func (n *Namespace) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("did not return") // fn called runtime.Goexit, as t.FailNow does
		defer func() { done <- err }()
		runtime.LockOSThread()
		// A thread that can't go back is not unlocked: it ends with the goroutine.
		home, e := os.Open("/proc/thread-self/ns/net")
		if e != nil {
			err = e
			return
		}
		defer home.Close()
		var here, there unix.Stat_t
		if unix.Fstat(int(home.Fd()), &here) == nil && unix.Fstat(n.FD(), &there) == nil &&
			here.Dev == there.Dev && here.Ino == there.Ino {
			err = fn()
			runtime.UnlockOSThread()
			return
		}
		if e := unix.Setns(n.FD(), unix.CLONE_NEWNET); e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("enter network namespace of device namespace %s (needs CAP_SYS_ADMIN): %w", n.name, e)
			return
		}
		err = fn()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}
