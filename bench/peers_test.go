package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkRestart measures what others need from the moment that a service has a
// new cgroup until the kernel knows it, where they can express cgroups at all: nft(8)
// adds the element to the map of the best rules by hand, or loads the file anew.
// firewalld, which can't, reloads as many open ports. BenchmarkBirth is the same
// for sockns.
func BenchmarkRestart(b *testing.B) {
	for _, n := range sizes {
		ways := []struct {
			name    string
			largest int // beyond which it takes minutes
			open    func(b *testing.B, n int) (restart func() error)
		}{
			{"nft-element", 10000, elementByHand},
			{"nft-reload", 10000, reloadByHand},
			{"firewalld-reload", 1000, reloadFirewalld},
		}
		for _, way := range ways {
			if n > way.largest {
				continue
			}
			b.Run(fmt.Sprintf("way=%s/namespaces=%d", way.name, n), func(b *testing.B) {
				haveCgroups(b, slices.Max(sizes))
				restart := way.open(b, n)
				var took []time.Duration
				for b.Loop() {
					began := time.Now()
					if err := restart(); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				percentiles(b, took)
			})
		}
	}
}

// elementByHand replaces the element of the last namespace, in each map.
func elementByHand(b *testing.B, n int) func() error {
	l := openLane(b, "map-by-hand", n)
	l.loadText(b, mapRules(n))
	cgroup := nftCgroup(n, n-1)
	var text strings.Builder
	for _, verb := range []string{"delete", "add"} {
		fmt.Fprintf(&text, "%s element inet byhand connecting { %q : goto c%d }\n", verb, cgroup, n-1)
		fmt.Fprintf(&text, "%s element inet byhand accepting { %q : goto a%d }\n", verb, cgroup, n-1)
	}
	return func() error {
		l.work <- func() error { return nftText(text.String()) }
		return <-l.done
	}
}

// reloadByHand loads the whole file.
func reloadByHand(b *testing.B, n int) func() error {
	l := openLane(b, "map-by-hand", n)
	text := "table inet byhand\ndelete table inet byhand\n" + mapRules(n)
	return func() error {
		l.work <- func() error { return nftText(text) }
		return <-l.done
	}
}

// reloadFirewalld runs a firewalld in a lane, with a D-Bus of its own and two open
// ports for each namespace, and has it reload.
func reloadFirewalld(b *testing.B, n int) func() error {
	l := openLane(b, "firewalld", n)
	client, err := startFirewalld(b, l, n)
	if err != nil {
		b.Skip(err)
	}
	return func() error {
		l.work <- func() error { return client("--reload") }
		return <-l.done
	}
}

// firewalldZone opens the ports of the policies of n namespaces. Who connects
// and who listens firewalld can't ask.
func firewalldZone(n int) string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone target=\"%%REJECT%%\">\n<short>bench</short>\n<interface name=\"lo\"/>\n")
	for i := range n {
		fmt.Fprintf(&b, "<port protocol=\"tcp\" port=\"%d\"/>\n", 10000+i)
	}
	fmt.Fprintf(&b, "<port protocol=\"tcp\" port=\"%[1]d\"/>\n<port protocol=\"udp\" port=\"%[1]d\"/>\n</zone>\n", servicePort)
	return b.String()
}

// startFirewalld starts it in a lane's network namespace and returns its client.
func startFirewalld(b *testing.B, l *lane, n int) (client func(args ...string) error, err error) {
	b.Helper()
	for _, program := range []string{"firewalld", "firewall-cmd", "dbus-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("make benchtools: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "snbench") // no = in a D-Bus address
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := filepath.Join(dir, "etc")
	write := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	bus := filepath.Join(dir, "bus")
	write("bus.conf", `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=`+bus+`</listen>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>
`)
	write("etc/zones/bench.xml", firewalldZone(n))
	write("etc/firewalld.conf", "DefaultZone=bench\nFirewallBackend=nftables\nIPv6_rpfilter=no\nCleanupModulesOnExit=no\n")
	env := append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+bus)
	start := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = env
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		l.do(b, cmd.Start)
		b.Cleanup(func() {
			_ = cmd.Process.Signal(unix.SIGTERM)
			_ = cmd.Wait()
		})
	}
	client = func(args ...string) error {
		cmd := exec.Command("firewall-cmd", args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("firewall-cmd %v: %w: %.300s", args, err, out)
		}
		return nil
	}
	start("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+filepath.Join(dir, "bus.conf"))
	for range 100 {
		if _, err := os.Stat(bus); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	start("firewalld", "--nofork", "--nopid", "--system-config", config)
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		if err = client("--state"); err == nil || time.Now().After(until) {
			return client, err
		}
	}
}

// BenchmarkHTTP asks a Go HTTP server in the serving namespace, over one kept
// connection and over a new one each time.
func BenchmarkHTTP(b *testing.B) {
	for _, kept := range []bool{true, false} {
		b.Run(fmt.Sprintf("connection=%s", map[bool]string{true: "kept", false: "new"}[kept]), func(b *testing.B) {
			lanes := openLanes(b)
			listeners := listen(b, lanes, serverMember())
			clients := make([]*http.Client, len(lanes))
			for i, l := range lanes {
				file := os.NewFile(uintptr(listeners[i]), "listener")
				dup, err := net.FileListener(file)
				if err != nil {
					b.Fatal(err)
				}
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
				go func() { _ = server.Serve(dup) }()
				b.Cleanup(func() { _ = server.Close() })
				// A socket is made by the lane's thread, to be in its network namespace.
				dial := func() (net.Conn, error) {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						return nil, err
					}
					f := os.NewFile(uintptr(fd), "client")
					defer f.Close()
					_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
					if err := unix.Connect(fd, &unix.SockaddrInet4{Port: servicePort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
						return nil, err
					}
					return net.FileConn(f)
				}
				clients[i] = &http.Client{Transport: &http.Transport{
					DisableKeepAlives: !kept,
					DialContext:       func(context.Context, string, string) (net.Conn, error) { return onThread(l, dial) },
				}}
			}
			b.Cleanup(func() { _ = enterCgroup("/") })
			if err := enterCgroup(clientMember()); err != nil {
				b.Fatal(err)
			}
			raceFree(b, lanes, 40, func(i, count int, took func(time.Duration)) error {
				for range count {
					began := time.Now()
					answer, err := clients[i].Get("http://server/")
					if err != nil {
						return err
					}
					_, err = io.Copy(io.Discard, answer.Body)
					if err = errors.Join(err, answer.Body.Close()); err != nil {
						return err
					}
					took(time.Since(began))
				}
				return nil
			})
		})
	}
}

// onThread has the lane's thread make a connection.
func onThread(l *lane, dial func() (net.Conn, error)) (conn net.Conn, err error) {
	l.work <- func() (e error) {
		conn, e = dial()
		return e
	}
	err = <-l.done
	return conn, err
}

// BenchmarkStart measures the program itself: how long it takes to begin and
// end, and how large it is.
func BenchmarkStart(b *testing.B) {
	program := filepath.Join(b.TempDir(), "sockns")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/sockns/sockns/cmd/sockns").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if out, err := exec.Command(program, "--version").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		took = append(took, time.Since(began))
	}
	percentiles(b, took)
	b.ReportMetric(float64(info.Size())/(1<<20), "binary-MiB")
}

// BenchmarkKernelMemory measures what the tables of a policy take in the kernel,
// a namespace: the slabs, what is allocated for each processor, and large blocks.
func BenchmarkKernelMemory(b *testing.B) {
	each(b, sizes[2:], func(b *testing.B, n, different int) {
		haveCgroups(b, n)
		host := openHost(b)
		var all []float64
		for b.Loop() {
			l := openLane(b, "sockns", n)
			prog, err := host.Compile(parsePolicy(b, policyOf(n, different, l.path, memberPath)))
			if err != nil {
				b.Fatal(err)
			}
			before := kernelMemory(b)
			for _, d := range prog.Devices {
				if d.Table != nil {
					l.load(b, d.Table)
				}
			}
			all = append(all, kernelMemory(b)-before)
		}
		slices.Sort(all) // others allocate and free, too
		grown := all[len(all)/2]
		b.ReportMetric(grown/float64(n), "KiB/namespace")
		b.ReportMetric(grown/1024, "kernel-MiB")
		b.ReportMetric(0, "ns/op")
	})
}

// kernelMemory returns the memory that the kernel has allocated, in KiB.
func kernelMemory(b *testing.B) (sum float64) {
	b.Helper()
	time.Sleep(500 * time.Millisecond) // what was freed waits for a grace period
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch f[0] {
		case "SUnreclaim:", "Percpu:", "VmallocUsed:":
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			sum += float64(kib)
		}
	}
	return sum
}
