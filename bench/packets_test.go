package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/nft"
)

// lane is a network namespace with some table in it, and a thread that makes
// sockets there. The cost of a packet is compared between lanes.
type lane struct {
	name string
	work chan func() error
	done chan error
	path string // of the network namespace
}

// openLane makes a network namespace whose lo is up.
func openLane(b *testing.B, name string) *lane {
	b.Helper()
	l := &lane{name: name, work: make(chan func() error), done: make(chan error)}
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends in another namespace
		for do := range l.work {
			l.done <- do()
		}
	}()
	b.Cleanup(func() { close(l.work) })
	var ns *os.File
	l.do(b, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return loopbackUp()
	})
	b.Cleanup(func() { ns.Close() })
	l.path = fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
	return l
}

// do runs something on the lane's thread.
func (l *lane) do(b *testing.B, work func() error) {
	b.Helper()
	l.work <- work
	if err := <-l.done; err != nil {
		b.Fatalf("%s: %v", l.name, err)
	}
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// The lanes: nothing at all, base chains without a rule, and policies.
func openLanes(b *testing.B) []*lane {
	b.Helper()
	most := slices.Max(sizes)
	haveCgroups(b, most)
	host := openHost(b)
	none, empty := openLane(b, "none"), openLane(b, "empty")
	empty.load(b, &nft.Table{Name: "empty", Chains: []nft.Chain{
		{Name: "input", Base: &nft.Base{Hook: nft.HookInput}},
		{Name: "output", Base: &nft.Base{Hook: nft.HookOutput}},
	}})
	lanes := []*lane{none, empty}
	for _, n := range sizes {
		l := openLane(b, fmt.Sprintf("n%d", n))
		// The namespaces with traffic are the last two of each policy.
		policy := parsePolicy(b, policyOf(n, n, l.path, func(i int) string { return memberPath(most - n + i) }))
		prog, err := host.Compile(policy)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range prog.Devices {
			if d.Table != nil {
				l.load(b, d.Table)
			}
		}
		lanes = append(lanes, l)
	}
	return lanes
}

// load puts a table in the lane: the packets' rules alone, without the syscall
// tier, which is one for all lanes.
func (l *lane) load(b *testing.B, table *nft.Table) {
	b.Helper()
	var conn *nft.Conn
	l.do(b, func() (err error) {
		conn, err = nft.Open(-1)
		return err
	})
	b.Cleanup(func() { conn.Close() })
	if err := conn.Apply(nft.Diff(nil, table)); err != nil {
		b.Fatal(err)
	}
}

// The members of the namespaces that answer and ask.
func serverMember() string { return memberPath(slices.Max(sizes) - 2) }
func clientMember() string { return memberPath(slices.Max(sizes) - 1) }

// race has all lanes do the same in turns, so that what else the machine does
// hits all of them, and reports the median of the time of a piece of work in
// each lane: rounds of count pieces. Work returns the time that count pieces took.
func race(b *testing.B, lanes []*lane, count int, work func(lane int) (time.Duration, error)) {
	b.Helper()
	const least = 50 // rounds, so that a median means something
	times := make([][]float64, len(lanes))
	round := func() {
		for i, l := range lanes {
			l.do(b, func() error {
				took, err := work(i)
				times[i] = append(times[i], float64(took.Nanoseconds())/float64(count))
				return err
			})
		}
	}
	round() // warms up
	for i := range times {
		times[i] = times[i][:0]
	}
	for b.Loop() {
		round()
	}
	for len(times[0]) < least {
		round()
	}
	b.ReportMetric(0, "ns/op") // of a round: says nothing
	median := make(map[string]float64)
	for i, l := range lanes {
		slices.Sort(times[i])
		median[l.name] = times[i][len(times[i])/2]
		b.ReportMetric(median[l.name], l.name+"-ns")
	}
	b.ReportMetric(median["n1000"]/median["n10"], "n1000/n10")
	b.ReportMetric(median["n10000"]/median["n10"], "n10000/n10")
	b.ReportMetric(median["n10000"]/median["empty"], "n10000/empty")
}

// BenchmarkDatagram sends datagrams over lo from the last namespace of a policy to
// the one before it. The last rule of both ends allows them.
func BenchmarkDatagram(b *testing.B) {
	lanes := openLanes(b)
	to := &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}
	servers, clients := make([]int, len(lanes)), make([]int, len(lanes))
	socket := func() (int, error) {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			b.Cleanup(func() { unix.Close(s) })
		}
		return s, err
	}
	inCgroup(b, serverMember(), lanes, func(i int) (err error) {
		if servers[i], err = socket(); err != nil {
			return err
		}
		return unix.Bind(servers[i], to)
	})
	inCgroup(b, clientMember(), lanes, func(i int) (err error) {
		if clients[i], err = socket(); err != nil {
			return err
		}
		return unix.Connect(clients[i], to)
	})
	const burst, bursts = 64, 100
	data := []byte("a datagram")
	race(b, lanes, burst*bursts, func(i int) (took time.Duration, err error) {
		var buf [64]byte
		for range bursts {
			began := time.Now()
			for range burst {
				if _, err := unix.Write(clients[i], data); err != nil {
					return 0, fmt.Errorf("send: %w", err)
				}
			}
			took += time.Since(began)
			for range burst {
				if _, err := unix.Read(servers[i], buf[:]); err != nil {
					return 0, fmt.Errorf("receive: %w", err)
				}
			}
		}
		return took, nil
	})
}

// BenchmarkConnect makes TCP connections between the same namespaces: socket,
// connect, accept and both closes.
func BenchmarkConnect(b *testing.B) {
	lanes := openLanes(b)
	listeners := listen(b, lanes)
	const count = 200
	b.Cleanup(func() { _ = enterCgroup("/") })
	if err := enterCgroup(clientMember()); err != nil {
		b.Fatal(err)
	}
	race(b, lanes, count, func(i int) (time.Duration, error) {
		began := time.Now()
		for range count {
			client, server, err := connect(listeners[i])
			if err != nil {
				return 0, err
			}
			unix.Close(client)
			unix.Close(server)
		}
		return time.Since(began), nil
	})
}

// BenchmarkExchange sends a request and a response of a few bytes on an
// established TCP connection.
func BenchmarkExchange(b *testing.B) {
	lanes := openLanes(b)
	clients, servers := connections(b, lanes)
	const count = 1000
	data := []byte("a request")
	race(b, lanes, count, func(i int) (time.Duration, error) {
		var buf [64]byte
		began := time.Now()
		for range count {
			for _, way := range [][2]int{{clients[i], servers[i]}, {servers[i], clients[i]}} {
				if _, err := unix.Write(way[0], data); err != nil {
					return 0, err
				}
				if _, err := unix.Read(way[1], buf[:]); err != nil {
					return 0, err
				}
			}
		}
		return time.Since(began), nil
	})
}

// BenchmarkBulk sends 64 KiB one way on an established TCP connection.
func BenchmarkBulk(b *testing.B) {
	lanes := openLanes(b)
	clients, servers := connections(b, lanes)
	const count = 100
	data, buf := make([]byte, 64<<10), make([]byte, 64<<10)
	race(b, lanes, count, func(i int) (time.Duration, error) {
		began := time.Now()
		for range count {
			for sent, received := 0, 0; received < len(data); {
				if sent < len(data) {
					n, err := unix.Write(clients[i], data[sent:])
					if err != nil && err != unix.EAGAIN {
						return 0, err
					}
					sent += max(n, 0)
				}
				n, err := unix.Read(servers[i], buf)
				if err != nil && err != unix.EAGAIN {
					return 0, err
				}
				received += max(n, 0)
			}
		}
		return time.Since(began), nil
	})
}

// inCgroup runs something for each lane on its thread, with the process in a cgroup.
func inCgroup(b *testing.B, path string, lanes []*lane, work func(lane int) error) {
	b.Helper()
	if err := enterCgroup(path); err != nil {
		b.Fatal(err)
	}
	for i, l := range lanes {
		l.do(b, func() error { return work(i) })
	}
	if err := enterCgroup("/"); err != nil {
		b.Fatal(err)
	}
}

// listen makes a TCP listener of the serving namespace in each lane.
func listen(b *testing.B, lanes []*lane) []int {
	b.Helper()
	listeners := make([]int, len(lanes))
	inCgroup(b, serverMember(), lanes, func(i int) error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		b.Cleanup(func() { unix.Close(s) })
		listeners[i] = s
		if err := unix.Bind(s, &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		return unix.Listen(s, 16)
	})
	return listeners
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
	listeners := listen(b, lanes)
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
