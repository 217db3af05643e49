package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/model"
)

// attempt is one call of a kind of socket.
type attempt struct {
	hook  model.Hook
	kind  string // of the actor's call
	proto model.Protocol
	addr  netip.AddrPort
}

// TestErrnos holds what system calls return against what the policy means: each
// errno of each hook, on both families, for TCP, UDP and MPTCP, blocking, not
// blocking, and for IPv4 in IPv6 sockets.
func TestErrnos(t *testing.T) {
	const base = 2000
	var client, server strings.Builder
	var ports []uint16
	port := uint16(base)
	next := func() uint16 { port++; ports = append(ports, port); return port }
	var binds, connects []uint16
	fmt.Fprintf(&client, "    connect:\n")
	for _, proto := range []string{"tcp", "udp"} {
		for _, errno := range model.HookErrors[model.Connect] {
			fmt.Fprintf(&client, "      - {action: deny, error: %s, protocol: %s, ports: %d}\n", errno, proto, next())
			connects = append(connects, port)
		}
	}
	fmt.Fprintf(&client, "      - {ports: %d-%d}\n", base, base+40)
	fmt.Fprintf(&server, "    accept:\n")
	for _, proto := range []string{"tcp", "udp"} {
		for _, errno := range model.HookErrors[model.Accept] {
			fmt.Fprintf(&server, "      - {action: deny, error: %s, protocol: %s, ports: %d}\n", errno, proto, next())
			connects = append(connects, port)
		}
	}
	for range 2 { // allowed at both ends, and by the client alone
		connects = append(connects, next())
	}
	fmt.Fprintf(&server, "      - {ports: %d-%d, from: client}\n", base, port-1)
	connects = append(connects, base+41) // nothing says anything
	ports = append(ports, base+41)
	fmt.Fprintf(&client, "    bind:\n")
	port = base + 100
	for _, proto := range []string{"tcp", "udp"} {
		for _, errno := range model.HookErrors[model.Bind] {
			port++
			binds = append(binds, port)
			fmt.Fprintf(&client, "      - {action: deny, error: %s, protocol: %s, ports: %d}\n", errno, proto, port)
		}
	}
	fmt.Fprintf(&client, "      - {action: deny, ports: 2120}\n      - {ports: 2121}\n      - {action: deny, ports: 2122, local: 192.0.2.1}\n      - {ports: 2122}\n")
	fmt.Fprintf(&server, "    bind:\n      - {protocol: tcp, ports: 2123}\n      - {ports: [2000-2099]}\n")
	binds = append(binds, 0, 2120, 2121, 2122, 2123, 2124)

	policy := "apiVersion: sockns/v1\nenforcement: {syscalls: required}\nsocketNamespaces:\n" +
		"  client:\n    members: [{cgroup: $CG/client}]\n    addresses: [192.0.2.1, \"2001:db8::1\"]\n" + client.String() +
		"  server:\n    members: [{cgroup: $CG/server}]\n    addresses: [192.0.2.2, \"2001:db8::2\"]\n" + server.String()
	w := newWorld(t, &txtar.Archive{Files: []txtar.File{{Name: "policy1.yaml", Data: []byte(policy)}}})
	w.play("netns host 192.0.2.1/32 2001:db8::1/128 192.0.2.2/32 2001:db8::2/128\ncgroup client server\npolicy 1")
	// In a socket namespace MPTCP sockets are older than the policy, or none.
	_, err := os.Stat("/proc/sys/net/mptcp")
	mptcp := err == nil
	calls := newCaller(w, "client")
	attempts := append(bindAttempts(binds), connectAttempts(connects)...)
	if mptcp {
		list := multipathAttempts(connects)
		for _, a := range list {
			if got := calls.call(strings.NewReplacer("connect", "prepare", "-prepared", "").Replace(a.kind), a.addr); got != "ok" {
				t.Fatalf("%s: %s", a.kind, got)
			}
		}
		attempts = append(attempts, list...)
	}
	w.play("apply")
	for _, p := range ports {
		for _, proto := range []string{"tcp", "udp"} {
			for _, addr := range []string{"192.0.2.2", "[2001:db8::2]"} {
				if got := w.serve("listen", "server", proto, fmt.Sprintf("%s:%d", addr, p)); got != "ok" {
					t.Fatalf("the server can't listen on %s %d: %s", proto, p, got)
				}
			}
		}
	}

	text, err := os.ReadFile(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	p, diags := model.Parse([]model.File{{Name: "policy1.yaml", Data: text}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	counts := make(map[string]int)
	for _, a := range attempts {
		var want model.Errno
		if a.hook == model.Bind {
			if v := model.DecideBind(p, "client", a.proto, a.addr); v.Refuses() {
				want = v.Error
			}
		} else {
			d := model.Decide(p, model.Flow{
				Protocol: a.proto,
				From:     model.End{Namespace: "client", Device: model.HostDevice},
				To:       model.End{Namespace: "server", Device: model.HostDevice, Address: a.addr},
			})
			if want = d.Error(); want == model.ETIMEDOUT && !d.Connect.Refuses() {
				want = "silence" // an accept rule's: docs/errors.md
				if a.proto == model.UDP {
					want = "" // a datagram is on its way
				}
			}
		}
		if want == "" {
			want = "ok"
		}
		counts[string(want)]++
		if got := calls.call(a.kind, a.addr); got != string(want) {
			t.Errorf("%s %s: %s, want %s", a.kind, a.addr, got, want)
		}
	}
	t.Logf("%v", counts)
	// MPTCP falls back to TCP: docs/limits.md.
	for _, addr := range []string{"192.0.2.2:2001", "[2001:db8::2]:2001"} {
		to := netip.MustParseAddrPort(addr)
		if got := calls.call("connect-mptcp", to); got != "socket EPROTONOSUPPORT" {
			t.Errorf("MPTCP in a socket namespace: %s", got)
		}
		if got := newCaller(w, "-").call("bind-mptcp", netip.AddrPortFrom(to.Addr(), 0)); mptcp && got != "ok" {
			t.Errorf("MPTCP elsewhere: %s", got)
		}
	}
}

func bindAttempts(ports []uint16) (list []attempt) {
	for _, port := range ports {
		for _, addr := range []string{"192.0.2.1", "192.0.2.2", "127.0.0.1", "0.0.0.0", "2001:db8::1", "2001:db8::2", "::1", "::"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			list = append(list,
				attempt{model.Bind, "bind-tcp", model.TCP, to}, attempt{model.Bind, "bind-udp", model.UDP, to},
				attempt{model.Bind, "bind-tcp-nonblock", model.TCP, to}, attempt{model.Bind, "bind-udp-nonblock", model.UDP, to})
			if to.Addr().Is4() && !to.Addr().IsUnspecified() {
				list = append(list, attempt{model.Bind, "bind-tcp-mapped", model.TCP, to}, attempt{model.Bind, "bind-udp-mapped", model.UDP, to})
			}
		}
	}
	return list
}

func connectAttempts(ports []uint16) (list []attempt) {
	for _, port := range ports {
		for _, addr := range []string{"192.0.2.2", "2001:db8::2"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			kinds := []string{"connect-tcp", "connect-tcp-nonblock", "connect-udp", "connect-udp-nonblock", "sendto-udp", "sendto-udp-nonblock"}
			if to.Addr().Is4() {
				kinds = append(kinds, "connect-tcp-mapped", "connect-tcp-nonblock-mapped", "connect-udp-mapped", "sendto-udp-mapped")
			}
			for _, k := range kinds {
				proto := model.TCP
				if strings.Contains(k, "udp") {
					proto = model.UDP
				}
				list = append(list, attempt{model.Connect, k, proto, to})
			}
		}
	}
	return list
}

// multipathAttempts connect sockets that are older than the policy.
func multipathAttempts(ports []uint16) (list []attempt) {
	for _, port := range ports {
		for _, addr := range []string{"192.0.2.2", "2001:db8::2"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			list = append(list, attempt{model.Connect, "connect-mptcp-prepared", model.TCP, to},
				attempt{model.Connect, "connect-mptcp-nonblock-prepared", model.TCP, to})
		}
	}
	return list
}

// caller is a process that does something on request, and says what became of
// it in a line.
type caller struct {
	w   *world
	in  io.Writer
	out *bufio.Scanner
}

// newCaller starts one that makes system calls.
func newCaller(w *world, who string) *caller {
	dir, ns, _ := w.place(who)
	return w.caller("call", dir, ns)
}

// caller starts the actor.
func (w *world) caller(args ...string) *caller {
	cmd := exec.Command(w.bin+"/actor", args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	w.background(cmd)
	return &caller{w, in, bufio.NewScanner(out)}
}

// call asks for one system call.
func (c *caller) call(kind string, addr netip.AddrPort) string {
	c.w.Helper()
	return c.do(fmt.Sprint(kind, " ", addr))
}

func (c *caller) do(what string) string {
	c.w.Helper()
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		c.w.Fatalf("%s: %v", what, err)
	}
	return c.next()
}

func (c *caller) next() string {
	c.w.Helper()
	if !c.out.Scan() {
		c.w.Fatal("the caller is gone: ", c.out.Err())
	}
	return c.out.Text()
}
