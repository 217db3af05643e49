package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// inotify is an inotify(7) instance that one goroutine reads, and that close
// or any other goroutine can wake.
type inotify struct {
	fd    int
	alarm int // eventfd(2)
}

// notice is one event of an inotify instance.
type notice struct {
	watch int    // descriptor of the watch; -1 with IN_Q_OVERFLOW
	mask  uint32 // IN_*
	name  string // entry of the watched directory, or empty for the directory itself
}

func openInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, remedy(fmt.Errorf("inotify_init1: %w", err))
	}
	alarm, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &inotify{fd, alarm}, nil
}

// close releases both descriptors; nobody may be in wait any more.
func (i *inotify) close() error {
	return errors.Join(unix.Close(i.alarm), unix.Close(i.fd))
}

// ring makes wait report an alarm, once.
func (i *inotify) ring() {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, _ = unix.Write(i.alarm, one)
}

// add watches a directory and returns the descriptor of the watch, the
// existing one if it is watched already. The error wraps [fs.ErrNotExist] if
// there is no such directory.
func (i *inotify) add(dir string, mask uint32) (int, error) {
	wd, err := unix.InotifyAddWatch(i.fd, dir, mask|unix.IN_ONLYDIR)
	if err != nil {
		return 0, remedy(&fs.PathError{Op: "inotify_add_watch", Path: dir, Err: err})
	}
	return wd, nil
}

// remove ends a watch. One that the kernel ended already is no error.
func (i *inotify) remove(wd int) { _, _ = unix.InotifyRmWatch(i.fd, uint32(wd)) }

// remedy adds what to do about the limits on inotify.
func remedy(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w (too many watches: raise the sysctl fs.inotify.max_user_watches)", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w (raise the sysctl fs.inotify.max_user_instances, or the limit of open files)", err)
	default:
		return err
	}
}

// woken says why wait returned; all are false if its time was up.
type woken struct {
	events bool // read has something
	alarm  bool // somebody rang
	mounts bool // the mount table changed
}

// wait blocks until there are events, an alarm, or a change of the mount table
// that is open as mounts (-1: none; proc_pid_mountinfo(5)), and for at most
// timeout milliseconds (-1: for ever). It blocks a thread in poll(2), which
// costs a few microseconds less for each event than the runtime's poller.
func (i *inotify) wait(mounts, timeout int) (woken, error) {
	fds := [3]unix.PollFd{
		{Fd: int32(i.fd), Events: unix.POLLIN},
		{Fd: int32(i.alarm), Events: unix.POLLIN},
		{Fd: int32(mounts), Events: unix.POLLPRI}, // poll ignores a negative descriptor
	}
	if _, err := unix.Poll(fds[:], timeout); err != nil && err != unix.EINTR {
		return woken{}, fmt.Errorf("poll: %w", err)
	}
	w := woken{fds[0].Revents != 0, fds[1].Revents != 0, fds[2].Revents&(unix.POLLPRI|unix.POLLERR) != 0}
	if w.alarm {
		var count [8]byte
		_, _ = unix.Read(i.alarm, count[:])
	}
	return w, nil
}

// read calls do for each event that has arrived; buf is scratch memory of at
// least 4 KiB.
func (i *inotify) read(buf []byte, do func(notice)) error {
	for {
		n, err := unix.Read(i.fd, buf)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return fmt.Errorf("read inotify events: %w", err)
		default:
			parseNotices(buf[:n], do)
			return nil // what came meanwhile makes the next wait return at once
		}
	}
}

// parseNotices decodes struct inotify_event after struct inotify_event.
func parseNotices(b []byte, do func(notice)) {
	for len(b) >= unix.SizeofInotifyEvent {
		size := uint64(binary.NativeEndian.Uint32(b[12:]))
		if size > uint64(len(b)-unix.SizeofInotifyEvent) {
			return
		}
		name := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+size]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		do(notice{
			watch: int(int32(binary.NativeEndian.Uint32(b))),
			mask:  binary.NativeEndian.Uint32(b[4:]),
			name:  string(name),
		})
		b = b[unix.SizeofInotifyEvent+size:]
	}
}
