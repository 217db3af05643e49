package conform

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

// How long an answer may take. A reset or an ICMP error of TCP over IPv6 is
// seen when the kernel sends its SYN again, after 1 s.
const (
	soon     = 250 * time.Millisecond
	again    = 1500 * time.Millisecond
	patience = 6 * time.Second
)

// client tries flows.
type client struct {
	netns   []int
	entered int
}

func (c *client) enter(device int) error {
	if device == c.entered {
		return nil
	}
	c.entered = device
	return unix.Setns(c.netns[device], unix.CLONE_NEWNET)
}

// attempt is a try that waits for its answer.
type attempt struct {
	index    int // of the try
	protocol model.Protocol
	until    time.Time
}

// try makes all tries at once and returns what each gets.
func (c *client) try(tries []try) ([]string, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(epoll)
	outcomes := make([]string, len(tries))
	waiting := make(map[int]attempt) // by descriptor
	for device := range c.netns {
		for i := range tries {
			f := &tries[i].Flow
			if f.Device != device {
				continue
			}
			if err := c.enter(device); err != nil {
				return nil, err
			}
			fd, said := begin(f)
			if said != "" {
				if outcomes[i] = said; fd >= 0 {
					reset(fd)
				}
				continue
			}
			if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
				return nil, err
			}
			waiting[fd] = attempt{i, f.Protocol, time.Now().Add(limit(tries[i]))}
			if len(waiting)%64 == 0 {
				collect(epoll, waiting, outcomes, 0)
			}
		}
	}
	for len(waiting) > 0 {
		now := time.Now()
		next := now.Add(patience)
		for fd, a := range waiting {
			if now.Before(a.until) {
				if a.until.Before(next) {
					next = a.until
				}
				continue
			}
			outcomes[a.index] = Silence
			delete(waiting, fd)
			reset(fd)
		}
		collect(epoll, waiting, outcomes, int(next.Sub(now).Milliseconds())+1)
	}
	return outcomes, nil
}

func limit(t try) time.Duration {
	switch {
	case !t.Silence:
		return patience
	case t.Flow.Protocol == model.TCP && t.Flow.To.Addr().Is6():
		return again
	}
	return soon
}

// begin makes the calls of a flow up to the one that waits; said is set if
// that ends it.
func begin(f *Flow) (fd int, said string) {
	addr := f.To.Addr()
	if f.OnlyBinds() {
		addr = f.Bind.Addr()
	}
	fd, err := newSocket(f.Protocol, addr)
	if err != nil {
		return -1, "socket " + outcome(err)
	}
	if f.OnlyBinds() {
		return fd, outcome(unix.Bind(fd, sockaddr(f.Bind)))
	}
	if f.Protocol == model.UDP { // to see each ICMP error
		level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		if addr.Is4() {
			level, option = unix.IPPROTO_IP, unix.IP_RECVERR
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return fd, "setsockopt " + outcome(err)
		}
	}
	if f.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(f.Mark)); err != nil {
			return fd, "setsockopt " + outcome(err)
		}
	}
	if f.Bind.Addr().IsValid() {
		if f.Bind.Port() != 0 { // others may be on their way from the same port
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err := unix.Bind(fd, sockaddr(f.Bind)); err != nil {
			return fd, "bind " + outcome(err)
		}
	}
	if f.SendTo {
		err = unix.Sendto(fd, []byte("?"), 0, sockaddr(f.To))
	} else if err = unix.Connect(fd, sockaddr(f.To)); err == nil && f.Protocol == model.UDP {
		_, err = unix.Write(fd, []byte("?"))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fd, outcome(err)
	}
	return fd, ""
}

// collect notes what came within some milliseconds.
func collect(epoll int, waiting map[int]attempt, outcomes []string, wait int) {
	var events [256]unix.EpollEvent
	for {
		n, _ := unix.EpollWait(epoll, events[:], wait)
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			a, ok := waiting[fd]
			if !ok {
				continue
			}
			var b [64]byte
			n, err := unix.Read(fd, b[:])
			switch {
			case errors.Is(err, unix.EAGAIN):
				continue
			case err != nil:
				outcomes[a.index] = outcome(err)
			case n == 0:
				outcomes[a.index] = "EOF"
			default:
				outcomes[a.index] = string(b[:n])
			}
			delete(waiting, fd)
			reset(fd)
		}
		if n < len(events) {
			return
		}
		wait = 0
	}
}
