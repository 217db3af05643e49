package decisions

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nflog"
	"github.com/sockns/sockns/syscalls"
)

const policy = `apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: /web}]
    connect:
      - {action: deny, error: EACCES, to: 10.0.0.9}
      - {action: deny, audit: true, protocol: udp}
      - {protocol: tcp, ports: 5432, to: db, log: true}
  blog:
    members: [{cgroup: /blog}]
    connect:
      - {action: deny, error: EACCES, to: 10.0.0.9}
      - {action: deny, audit: true, protocol: udp}
  db:
    members: [{cgroup: /db}]
    accept: [{from: web}]
  user:
    each: /user/u*
  one:
    members: [{cgroup: /one}]
    connect: [{to: db}]
  two:
    members: [{cgroup: /two}]
    connect: [{to: db}]
`

// world has a stream and what came out of it.
type world struct {
	*testing.T
	stream *Stream
	view   *View
	index  *compiler.Index
	now    time.Time
	told   []string
	events []events.Event
}

func newWorld(t *testing.T) *world {
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(policy)}})
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	f := compiler.Facts{Devices: map[string]compiler.DeviceFacts{model.HostDevice: {}}}
	for i, name := range []string{"web", "blog", "db", "one", "two", "user/1"} {
		f.Members = append(f.Members, compiler.Member{Namespace: name, Path: "/" + name, ID: uint64(i + 1), Level: 1})
	}
	w := &world{T: t, now: time.Unix(1000, 0)}
	w.index = compiler.CompileWith(p, f, compiler.AllPasses).Devices[0].Index
	w.view = NewView(p, map[string]*compiler.Index{model.HostDevice: w.index}, map[uint64]string{7: model.HostDevice})
	w.stream = New(func(e events.Event) {
		w.events = append(w.events, e)
		w.told = append(w.told, strings.TrimSpace(e.Namespace+" "+e.Message))
	})
	w.stream.Use(w.view, w.now)
	return w
}

// wait lets time pass.
func (w *world) wait(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(50 * time.Millisecond)
		w.stream.Tick(w.now)
	}
}

// want compares what was told since it was last asked. Counts that are due at
// once come in no order.
func (w *world) want(lines ...string) {
	w.Helper()
	slices.Sort(lines)
	slices.Sort(w.told)
	if diff := cmp.Diff(lines, w.told); diff != "" {
		w.Error(diff)
	}
	w.told = nil
}

// datagram returns the headers of a datagram that was sent as the nth.
func datagram(from, to string, n uint16) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	p := make([]byte, 28)
	p[0], p[9] = 0x45, 17
	binary.BigEndian.PutUint16(p[4:], n)
	copy(p[12:], a.Addr().AsSlice())
	copy(p[16:], b.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], a.Port())
	binary.BigEndian.PutUint16(p[22:], b.Port())
	return p
}

func (w *world) id(name string) uint32 { return w.index.Identity(name) }

// packet logs a packet, and the second one if peer is not 0.
func (w *world) packet(p compiler.Prefix, payload []byte, mark, peer uint32) {
	w.stream.Packet(model.HostDevice, &nflog.Packet{Prefix: p.String(), Mark: mark, In: 1, Payload: payload}, w.now)
	if peer != 0 {
		w.stream.Packet(model.HostDevice, &nflog.Packet{Prefix: compiler.PeerPrefix, Mark: peer, In: 1, Payload: payload}, w.now)
	}
}

func TestPackets(t *testing.T) {
	w := newWorld(t)
	d := datagram("127.0.0.1:40000", "127.0.0.1:53", 1)
	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED}, d, w.id("blog"), w.id("db"))
	w.want()
	w.wait(hold)
	w.want("db refused udp 127.0.0.1:40000 -> 127.0.0.1:53 (from blog) with ECONNREFUSED by accept default at policy.yaml:14")

	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndFrom, Hook: model.Connect, Rule: 1, Errno: model.EACCES}, d, w.id("web"), w.id("user/1"))
	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndOut, Hook: model.Connect, Errno: model.EACCES}, d, w.id("user/1"), 0)
	w.wait(hold)
	w.want("web refused udp 127.0.0.1:40000 -> 127.0.0.1:53 (user/1) with EACCES by connect rule 1 at policy.yaml:6",
		"user/1 refused udp 127.0.0.1:40000 -> 127.0.0.1:53 with EACCES by connect default at policy.yaml:17")
}

// TestShared: a policy of two namespaces that names peers.
func TestShared(t *testing.T) {
	w := newWorld(t)
	d := datagram("127.0.0.1:40000", "127.0.0.1:53", 1)
	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndOf, Hook: model.Connect, Errno: model.ECONNREFUSED}, d, w.id("one"), w.id("db"))
	w.wait(hold)
	w.want("refused udp 127.0.0.1:40000 -> 127.0.0.1:53 (db) with ECONNREFUSED by connect default at policy.yaml:19 of one of one, two")
	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndOf, Hook: model.Connect, Errno: model.ECONNREFUSED}, d, w.id("web"), w.id("db"))
	w.wait(hold)
	w.want("web refused udp 127.0.0.1:40000 -> 127.0.0.1:53 (db) with ECONNREFUSED by connect default at policy.yaml:3")
}

// TestAuditTellsOnce: of a packet that both ends would refuse, the connecting
// end tells, as when enforcing, and what it hides is marked; a rule that is in
// audit alone tells besides. Each end that tells is the other's peer.
func TestAuditTellsOnce(t *testing.T) {
	w := newWorld(t)
	for n := range uint16(2) {
		d := datagram("127.0.0.1:40000", "127.0.0.1:53", n)
		w.packet(compiler.Prefix{Outcome: compiler.Audited, Namespace: "db", End: compiler.EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED}, d, 0, 0)
		w.packet(compiler.Prefix{Outcome: compiler.Audited, Namespace: "web", End: compiler.EndFrom, Hook: model.Connect, Rule: 2, Errno: model.ECONNREFUSED}, d, 0, 0)
		w.packet(compiler.Prefix{Outcome: compiler.Audited, Namespace: "web", End: compiler.EndFrom, Hook: model.Connect, Errno: model.ECONNREFUSED}, d, 0, 0)
	}
	w.wait(2 * window)
	w.want("db would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 (from web) with ECONNREFUSED by accept default at policy.yaml:14, behind another",
		"web would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 (db) with ECONNREFUSED by connect rule 2 at policy.yaml:7",
		"web would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 (db) with ECONNREFUSED by connect default at policy.yaml:3",
		"db would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 (from web) with ECONNREFUSED by accept default at policy.yaml:14, behind another",
		"web would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 (db) with ECONNREFUSED by connect rule 2 at policy.yaml:7",
		"web would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 (db) with ECONNREFUSED by connect default at policy.yaml:3")
}

// TestBindOfReceiver: what was bound is the packet's destination, whoever sent it.
func TestBindOfReceiver(t *testing.T) {
	w := newWorld(t)
	for n := range uint16(3) {
		d := datagram(fmt.Sprintf("10.0.0.1:%d", 40000+n), "10.0.0.2:53", n)
		w.packet(compiler.Prefix{Outcome: compiler.Audited, Namespace: "db", End: compiler.EndTo, Hook: model.Bind, Errno: model.EACCES}, d, 0, 0)
	}
	w.packet(compiler.Prefix{Outcome: compiler.Audited, Namespace: "db", End: compiler.EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED},
		datagram("10.0.0.1:40002", "10.0.0.2:53", 2), 0, 0)
	w.wait(2 * window)
	w.want("db would refuse udp 10.0.0.2:53 for 10.0.0.1:40000 with EACCES by bind default at policy.yaml:14",
		"db would refuse udp 10.0.0.1:40002 -> 10.0.0.2:53 with ECONNREFUSED by accept default at policy.yaml:14, behind another",
		"db would refuse udp 10.0.0.2:53 for 10.0.0.1:40002 with EACCES by bind default at policy.yaml:14, 2 times")
}

func address(s string) syscalls.Address { return syscalls.AddressOf(netip.MustParseAddr(s)) }

func TestCalls(t *testing.T) {
	w := newWorld(t)
	tag := compiler.RuleTag(&w.view.policy.Namespace("web").Connect[0])
	refused := syscalls.Report{
		Count: 1, Netns: 7, Identity: w.id("web"), Local: address("10.0.0.1"), Remote: address("10.0.0.9"), Port: 443,
		Error: 13, Rule: 1, Tag: tag, Hook: 1, Protocol: syscalls.TCP,
	}
	curl := &events.Actor{PID: 42, Process: "curl", Unit: "web.service"}
	w.stream.Call(&refused, curl, w.now, w.now)
	w.want("web refused tcp 10.0.0.1 -> 10.0.0.9:443 with EACCES by connect rule 1 at policy.yaml:6, pid 42 (curl) of web.service")

	// Three alike and 96 that were only counted.
	for range 3 {
		refused.Count++
		w.stream.Call(&refused, curl, w.now, w.now)
	}
	refused.Count = 101
	w.stream.Call(&refused, curl, w.now, w.now)
	w.wait(2 * window)
	w.want("web refused tcp 10.0.0.1 -> 10.0.0.9:443 with EACCES by connect rule 1 at policy.yaml:6, pid 42 (curl) of web.service, 4 times")
	w.stream.Tallied([]syscalls.Tally{{Identity: w.id("web"), Hook: 1, Tag: tag, Count: 1101}}, w.now)
	w.stream.Tallied([]syscalls.Tally{{Identity: w.id("web"), Hook: 1, Tag: tag, Count: 1101}}, w.now)
	if e := w.events[len(w.events)-1].Decided; e.Count != 0 || e.Unreported != 1096 {
		t.Errorf("%+v", e)
	}
	var total uint64
	for _, e := range w.events {
		total += e.Decided.Count + e.Decided.Unreported
	}
	if total != 1101 {
		t.Errorf("%d decisions, 1101 were made", total)
	}
	w.want("web refused 1096 more than are told one by one by connect rule 1 at policy.yaml:6")

	bind := syscalls.Report{Count: 1, Netns: 7, Identity: w.id("db"), Port: 80, Error: 98, Hook: 0, Protocol: syscalls.TCP}
	w.stream.Call(&bind, nil, w.now, w.now)
	w.want("db refused tcp 0.0.0.0:80 with EADDRINUSE by bind default at policy.yaml:14")
}

// TestLateReport: a call whose report comes after it was told in a number is
// not told again, however late that is. One that was counted since is told, and
// so is one from before the counts were first read, or after the kernel has
// begun to count anew.
func TestLateReport(t *testing.T) {
	w := newWorld(t)
	tag := compiler.RuleTag(&w.view.policy.Namespace("web").Connect[0])
	counted := func(n uint64) []syscalls.Tally {
		return []syscalls.Tally{{Identity: w.id("web"), Hook: 1, Tag: tag, Count: n}}
	}
	report := func(n uint64, port uint16, decided time.Time) {
		w.stream.Call(&syscalls.Report{
			Count: n, Netns: 7, Identity: w.id("web"), Local: address("10.0.0.1"), Remote: address("10.0.0.9"), Port: port,
			Error: 13, Rule: 1, Tag: tag, Hook: 1, Protocol: syscalls.TCP,
		}, nil, decided, w.now)
	}
	alone := func(port int) string {
		return fmt.Sprintf("web refused tcp 10.0.0.1 -> 10.0.0.9:%d with EACCES by connect rule 1 at policy.yaml:6", port)
	}
	w.stream.BeginCalls(counted(10))
	report(10, 1, w.now) // its reader has ended before it came to it
	w.want(alone(1))
	decided := w.now
	report(11, 2, decided)
	w.wait(Settle)
	w.told = nil
	w.stream.Tallied(counted(14), w.now)
	w.want("web refused 3 more than are told one by one by connect rule 1 at policy.yaml:6")
	for n := uint64(12); n <= 14; n++ {
		report(n, uint16(n), decided)
	}
	w.want()
	report(15, 15, w.now)
	w.want(alone(15))
	w.stream.Tallied(counted(15), w.now)
	w.want()
	w.wait(time.Second)
	report(1, 16, w.now)
	w.want(alone(16))
	w.stream.Tallied(counted(1), w.now)
	w.want()
}

// TestCallStandsForItsPacket: what a call tells, its packets don't tell again.
func TestCallStandsForItsPacket(t *testing.T) {
	w := newWorld(t)
	allowed := syscalls.Report{
		Count: 1, Netns: 7, Identity: w.id("web"), Identified: 1, Peer: w.id("db"), Outcome: syscalls.Logged,
		Local: address("127.0.0.1"), Remote: address("127.0.0.1"), Port: 5432, Rule: 3, Hook: 1, Protocol: syscalls.UDP,
	}
	prefix := compiler.Prefix{Outcome: compiler.Allowed, Namespace: "web", End: compiler.EndFrom, Hook: model.Connect, Rule: 3}
	w.stream.Call(&allowed, nil, w.now, w.now)
	w.packet(prefix, datagram("127.0.0.1:40000", "127.0.0.1:5432", 1), 0, 0)
	w.wait(window)
	w.want("web allowed udp 127.0.0.1 -> 127.0.0.1:5432 (db) by connect rule 3 at policy.yaml:8")
	w.wait(2 * echo)
	w.packet(prefix, datagram("127.0.0.1:40000", "127.0.0.1:5432", 2), 0, 0)
	w.wait(hold)
	w.want("web allowed udp 127.0.0.1:40000 -> 127.0.0.1:5432 by connect rule 3 at policy.yaml:8")
}

// TestFormerPolicy: a decision from before a change is told in the words of then.
func TestFormerPolicy(t *testing.T) {
	w := newWorld(t)
	decided := w.now
	w.now = w.now.Add(time.Second)
	next, _ := model.Parse([]model.File{{Name: "next.yaml", Data: []byte(strings.Replace(policy, "socketNamespaces:\n", "socketNamespaces:\n\n", 1))}})
	w.stream.Use(NewView(next, map[string]*compiler.Index{model.HostDevice: w.index}, map[uint64]string{7: model.HostDevice}), w.now)
	r := syscalls.Report{Count: 1, Netns: 7, Identity: w.id("web"), Local: address("10.0.0.1"), Remote: address("10.0.0.9"), Port: 443, Error: 13, Rule: 1, Hook: 1, Protocol: syscalls.TCP}
	w.stream.Call(&r, nil, decided, w.now)
	r.Count++
	r.Port = 444
	w.stream.Call(&r, nil, w.now, w.now)
	w.want("web refused tcp 10.0.0.1 -> 10.0.0.9:443 with EACCES by connect rule 1 at policy.yaml:6",
		"web refused tcp 10.0.0.1 -> 10.0.0.9:444 with EACCES by connect rule 1 at next.yaml:7")
}

// TestBounded: a flood of what is never alike is held in bounds.
func TestBounded(t *testing.T) {
	w := newWorld(t)
	prefix := compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED}
	for n := range 3 * most {
		d := datagram(fmt.Sprintf("10.1.%d.%d:40000", n/256%256, n%256), fmt.Sprintf("10.0.0.1:%d", 1+n%65535), uint16(n))
		w.packet(prefix, d, w.id("web"), w.id("db"))
	}
	if len(w.stream.held) > most+1 || len(w.stream.alike) > most {
		t.Errorf("%d held, %d alike", len(w.stream.held), len(w.stream.alike))
	}
	w.wait(2 * window)
	var total uint64
	for _, e := range w.events {
		total += e.Decided.Count
	}
	if total != 3*most {
		t.Errorf("%d told of %d", total, 3*most)
	}
	if next := w.stream.Tick(w.now.Add(10 * echo)); !next.IsZero() {
		t.Error("something waits although everything was told")
	}
}

// TestUntold: what a table has counted is told one by one or as a number, all of it once.
func TestUntold(t *testing.T) {
	w := newWorld(t)
	accept := compiler.Telling{Hook: model.Accept, Outcome: compiler.Refused, Errno: model.ECONNREFUSED}
	connect := compiler.Telling{Namespace: "web", Hook: model.Connect, Rule: 1, Outcome: compiler.Refused}
	quiet := compiler.Telling{Namespace: "one", Hook: model.Connect, Rule: 1, Outcome: compiler.Allowed}
	figures := func(accepts, connects, db, user uint64) *compiler.Tellings {
		f := &compiler.Tellings{Counted: map[compiler.Telling]compiler.Figure{
			accept: {Count: accepts}, connect: {Name: "may not connect 10.0.0.9 (EACCES)", Count: connects}, quiet: {Count: connects},
		}, Accepting: make(map[compiler.Telling]uint64)}
		for name, n := range map[string]uint64{"db": db, "user": user} {
			f.Accepting[compiler.Telling{Namespace: name, Hook: model.Accept, Outcome: compiler.Refused}] = n
		}
		return f
	}
	w.stream.Begin(model.HostDevice, figures(100, 200, 90, 50)) // former days
	d := datagram("127.0.0.1:40000", "127.0.0.1:53", 1)
	for range 3 {
		w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED}, d, w.id("blog"), w.id("db"))
	}
	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndFrom, Hook: model.Connect, Rule: 1, Errno: model.EACCES}, d, w.id("web"), w.id("db"))
	if w.stream.Counted(model.HostDevice, figures(103, 201, 95, 50), w.now) {
		t.Error("more is told than was counted")
	}
	w.wait(2 * window)
	w.told = nil
	// All but those is a flood, at db and, for what web itself refuses, at web.
	w.packet(compiler.Prefix{Outcome: compiler.Refused, End: compiler.EndFrom, Hook: model.Connect, Rule: 1, Errno: model.EACCES}, d, w.id("web"), w.id("db"))
	for range 2 {
		w.stream.Counted(model.HostDevice, figures(1103, 252, 1100, 50), w.now)
	}
	slices.Sort(w.told)
	w.want("db refused 1000 more than are told one by one with ECONNREFUSED by accept default at policy.yaml:14",
		"web refused 50 more than are told one by one by connect rule 1 at policy.yaml:6")
	w.wait(2 * window)
	w.told = nil
	// Several accepting ends: which it was is not counted.
	w.stream.Counted(model.HostDevice, figures(1104, 252, 1101, 51), w.now)
	w.want("refused 1 more than are told one by one with ECONNREFUSED by accept default at policy.yaml:14 of one of db, user")
	// A policy that keeps the rule keeps its figure, somebody's reset is no flood.
	w.stream.Begin(model.HostDevice, figures(1104, 253, 1101, 51))
	w.stream.Counted(model.HostDevice, figures(1104, 254, 1101, 51), w.now)
	w.stream.Counted(model.HostDevice, figures(7, 254, 1101, 51), w.now)
	w.want("web refused 2 more than are told one by one by connect rule 1 at policy.yaml:6")
	var told uint64
	for _, e := range w.events {
		if e.Decided.Rule == 1 {
			told += e.Decided.Count + e.Decided.Unreported
		}
	}
	if told != 54 {
		t.Errorf("%d decisions of web's rule are told, 54 were counted", told)
	}
}

// TestEchoes: the packets of an audited call are not told again, those of
// another sender to the same place are.
func TestEchoes(t *testing.T) {
	w := newWorld(t)
	call := syscalls.Report{
		Count: 1, Netns: 7, Identity: w.id("db"), Peer: w.id("web"), Identified: 1, Local: address("127.0.0.1"), Remote: address("127.0.0.1"), Port: 53,
		Error: 111, Hook: 2, Outcome: syscalls.Audited, Protocol: syscalls.UDP,
	}
	w.stream.Call(&call, nil, w.now, w.now)
	w.want("db would refuse udp 127.0.0.1 -> 127.0.0.1:53 (from web) with ECONNREFUSED by accept default at policy.yaml:14")
	audited := compiler.Prefix{Outcome: compiler.Audited, Namespace: "db", End: compiler.EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED}
	for i := range 3 {
		w.packet(audited, datagram("127.0.0.1:40000", "127.0.0.1:53", uint16(i)), 0, 0)
	}
	w.packet(audited, datagram("127.0.0.1:40001", "127.0.0.1:53", 9), 0, 0)
	w.wait(window)
	w.want("db would refuse udp 127.0.0.1:40001 -> 127.0.0.1:53 with ECONNREFUSED by accept default at policy.yaml:14")
	w.packet(audited, datagram("127.0.0.1:40000", "127.0.0.1:53", 10), 0, 0)
	w.wait(10 * echo)
	w.want()
	w.packet(audited, datagram("127.0.0.1:40000", "127.0.0.1:53", 11), 0, 0)
	w.wait(hold)
	w.want("db would refuse udp 127.0.0.1:40000 -> 127.0.0.1:53 with ECONNREFUSED by accept default at policy.yaml:14")
}
