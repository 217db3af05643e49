package bench

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkDatagram sends datagrams over lo from the last namespace of a policy to
// the one before it. The last rule of both ends allows them.
func BenchmarkDatagram(b *testing.B) {
	reportTimes(b, openLanes(b), datagrams, serverMember(), clientMember())
}

// datagrams takes the times of datagrams in each lane, from a socket of one
// cgroup to one of another.
func datagrams(b *testing.B, lanes []*lane, server, client string) [][]float64 {
	b.Helper()
	to := &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}
	servers, clients := make([]int, len(lanes)), make([]int, len(lanes))
	socket := func() (int, error) {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			b.Cleanup(func() { unix.Close(s) })
		}
		return s, err
	}
	inCgroup(b, server, lanes, func(i int) (err error) {
		if servers[i], err = socket(); err != nil {
			return err
		}
		return unix.Bind(servers[i], to)
	})
	inCgroup(b, client, lanes, func(i int) (err error) {
		if clients[i], err = socket(); err != nil {
			return err
		}
		return unix.Connect(clients[i], to)
	})
	const burst = 64
	data := []byte("a datagram")
	return timesOf(b, lanes, 40, func(i, bursts int, took func(time.Duration)) error {
		var buf [64]byte
		for range bursts {
			began := time.Now()
			for range burst {
				if _, err := unix.Write(clients[i], data); err != nil {
					return fmt.Errorf("send: %w", err)
				}
			}
			took(time.Since(began) / burst)
			for range burst {
				if _, err := unix.Read(servers[i], buf[:]); err != nil {
					return fmt.Errorf("receive: %w", err)
				}
			}
		}
		return nil
	})
}

// BenchmarkConnect makes TCP connections between the same namespaces: socket,
// connect, accept and both closes.
func BenchmarkConnect(b *testing.B) {
	reportTimes(b, openLanes(b), connects, serverMember(), clientMember())
}

// connects takes the times of connections in each lane, from one cgroup to another.
func connects(b *testing.B, lanes []*lane, server, client string) [][]float64 {
	b.Helper()
	listeners := listen(b, lanes, server)
	b.Cleanup(func() { _ = enterCgroup("/") })
	if err := enterCgroup(client); err != nil {
		b.Fatal(err)
	}
	return timesOf(b, lanes, 100, func(i, count int, took func(time.Duration)) error {
		return connectOften(listeners[i], count, took)
	})
}

// connectOften makes connections to a listener and closes them, and tells the
// time of each.
func connectOften(listener, count int, took func(time.Duration)) error {
	for range count {
		began := time.Now()
		client, server, err := connect(listener)
		if err != nil {
			return err
		}
		unix.Close(client)
		unix.Close(server)
		took(time.Since(began))
	}
	return nil
}

// BenchmarkExchange sends a request and a response of a few bytes on an
// established TCP connection.
func BenchmarkExchange(b *testing.B) {
	lanes := openLanes(b)
	clients, servers := connections(b, lanes)
	data := []byte("a request")
	race(b, lanes, 300, func(i, count int, took func(time.Duration)) error {
		var buf [64]byte
		for range count {
			began := time.Now()
			for _, way := range [][2]int{{clients[i], servers[i]}, {servers[i], clients[i]}} {
				if _, err := unix.Write(way[0], data); err != nil {
					return err
				}
				if _, err := unix.Read(way[1], buf[:]); err != nil {
					return err
				}
			}
			took(time.Since(began))
		}
		return nil
	})
}

// BenchmarkBulk sends 64 KiB one way on an established TCP connection.
func BenchmarkBulk(b *testing.B) {
	lanes := openLanes(b)
	clients, servers := connections(b, lanes)
	data, buf := make([]byte, 64<<10), make([]byte, 64<<10)
	race(b, lanes, 50, func(i, count int, took func(time.Duration)) error {
		for range count {
			began := time.Now()
			for sent, received := 0, 0; received < len(data); {
				if sent < len(data) {
					n, err := unix.Write(clients[i], data[sent:])
					if err != nil && err != unix.EAGAIN {
						return err
					}
					sent += max(n, 0)
				}
				n, err := unix.Read(servers[i], buf)
				if err != nil && err != unix.EAGAIN {
					return err
				}
				received += max(n, 0)
			}
			took(time.Since(began))
		}
		return nil
	})
}

// listen makes a TCP listener of the serving namespace in each lane.
func listen(b *testing.B, lanes []*lane, server string) []int {
	b.Helper()
	listeners := make([]int, len(lanes))
	inCgroup(b, server, lanes, func(i int) (err error) {
		listeners[i], err = listener(b)
		return err
	})
	return listeners
}

// listener makes one in the calling thread's network namespace.
func listener(b *testing.B) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	b.Cleanup(func() { unix.Close(s) })
	err = unix.Bind(s, &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(s, 16)
	}
	return s, err
}

// connect makes a connection to a listener of the calling thread's network
// namespace. Its ends leave nothing behind when they are closed.
func connect(listener int) (client, server int, err error) {
	to := &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}
	if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err = unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err == nil {
		err = unix.Connect(client, to)
	}
	if err == nil {
		server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		unix.Close(client)
		return 0, 0, fmt.Errorf("connect: %w", err)
	}
	return client, server, nil
}

// connections makes an established connection in each lane.
func connections(b *testing.B, lanes []*lane) (clients, servers []int) {
	b.Helper()
	listeners := listen(b, lanes, serverMember())
	clients, servers = make([]int, len(lanes)), make([]int, len(lanes))
	inCgroup(b, clientMember(), lanes, func(i int) (err error) {
		if clients[i], servers[i], err = connect(listeners[i]); err != nil {
			return err
		}
		b.Cleanup(func() { unix.Close(clients[i]); unix.Close(servers[i]) })
		for _, s := range []int{clients[i], servers[i]} {
			if err := unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
				return err
			}
		}
		return nil
	})
	return clients, servers
}
