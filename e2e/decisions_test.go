package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/events"
)

const decisionsPolicy = `apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: $CG/web}]
    mode: $MODE
    bind: [{protocol: tcp, ports: 80}]
    connect:
      - {action: deny, error: EACCES, protocol: tcp, ports: 31001}
      - {action: deny, error: EHOSTUNREACH, protocol: udp, ports: 31002}
      - {action: deny, audit: true, protocol: tcp, ports: 31003}
      - {protocol: tcp, ports: 31003, to: db, log: true}
      - {protocol: tcp, ports: 31004, to: db}
      - {protocol: udp, ports: 31006, to: db}
  db:
    members: [{cgroup: $CG/db}]
    mode: $MODE
    accept:
      - {protocol: tcp, ports: 31003, from: web}
`

// Each line is a step, and what is told of it: which tier tells it where both
// are there and where packets are alone (- is none), and the decision.
const decisionsScript = `
connect web tcp 127.0.0.1:31001            : calls+packets web connect 1 :8 EACCES tcp 127.0.0.1:31001 unmanaged
connect web udp 127.0.0.1:31002            : calls+packets web connect 2 :9 EHOSTUNREACH udp 127.0.0.1:31002 unmanaged
connect web tcp 127.0.0.1:31003            : calls+packets web connect 3 :10 ECONNREFUSED tcp 127.0.0.1:31003 db; calls+packets web connect 4 :11 - tcp 127.0.0.1:31003 db
connect web tcp 127.0.0.1:31004            : calls+packets db accept 0 :14 ECONNREFUSED tcp 127.0.0.1:31004 web
connect - tcp 127.0.0.1:31003              : packets+packets db accept 0 :14 ECONNREFUSED tcp 127.0.0.1:31003 unmanaged
connect web tcp [::1]:31005                : calls+packets web connect 0 :3 ECONNREFUSED tcp [::1]:31005 unmanaged
connect web tcp 10.9.0.2:31006             : calls+packets web connect 0 :3 ECONNREFUSED tcp 10.9.0.2:31006 -
listen web udp 127.0.0.1:81                : calls+- web bind 0 :3 EACCES udp 127.0.0.1:81 -
connect - udp 127.0.0.1:81                 : -+packets web bind 0 :3 ECONNREFUSED udp 127.0.0.1:81 unmanaged
connect -@far tcp 10.9.0.1:31004           : packets+packets db accept 0 :14 ECONNREFUSED tcp 10.9.0.1:31004 -
connect web tcp [::1]:31004                : calls+packets db accept 0 :14 ECONNREFUSED tcp [::1]:31004 web
connect web udp 127.0.0.1:31006            : calls+packets db accept 0 :14 ECONNREFUSED udp 127.0.0.1:31006 web
connect web udp [::1]:31006                : calls+packets db accept 0 :14 ECONNREFUSED udp [::1]:31006 web
connect - tcp [::1]:31004                  : packets+packets db accept 0 :14 ECONNREFUSED tcp [::1]:31004 unmanaged
connect - udp 127.0.0.1:31006              : packets+packets db accept 0 :14 ECONNREFUSED udp 127.0.0.1:31006 unmanaged
connect - udp [::1]:31006                  : packets+packets db accept 0 :14 ECONNREFUSED udp [::1]:31006 unmanaged
connect web udp [::1]:31005                : calls+packets web connect 0 :3 ECONNREFUSED udp [::1]:31005 unmanaged
send web 127.0.0.1:31008                   : calls+packets web connect 0 :3 ECONNREFUSED udp 127.0.0.1:31008 unmanaged
send web [::1]:31008                       : calls+packets web connect 0 :3 ECONNREFUSED udp [::1]:31008 unmanaged
send web 127.0.0.1:31006                   : calls+packets db accept 0 :14 ECONNREFUSED udp 127.0.0.1:31006 web
connect web udp 10.9.0.2:31007             : calls+packets web connect 0 :3 ECONNREFUSED udp 10.9.0.2:31007 -
connect web tcp [fd09::2]:31006            : calls+packets web connect 0 :3 ECONNREFUSED tcp [fd09::2]:31006 -
connect web udp [fd09::2]:31007            : calls+packets web connect 0 :3 ECONNREFUSED udp [fd09::2]:31007 -
connect -@far udp 10.9.0.1:31006           : packets+packets db accept 0 :14 ECONNREFUSED udp 10.9.0.1:31006 -
connect -@far tcp [fd09::1]:31004          : packets+packets db accept 0 :14 ECONNREFUSED tcp [fd09::1]:31004 -
connect -@far udp [fd09::1]:31006          : packets+packets db accept 0 :14 ECONNREFUSED udp [fd09::1]:31006 -
listen web tcp 127.0.0.1:82                : calls+- web bind 0 :3 EACCES tcp 127.0.0.1:82 -
listen web tcp [::1]:83                    : calls+- web bind 0 :3 EACCES tcp [::1]:83 -
listen web udp [::1]:84                    : calls+- web bind 0 :3 EACCES udp [::1]:84 -
connect - tcp 127.0.0.1:82                 : -+packets web bind 0 :3 ECONNREFUSED tcp 127.0.0.1:82 unmanaged
connect - tcp [::1]:83                     : -+packets web bind 0 :3 ECONNREFUSED tcp [::1]:83 unmanaged
connect - udp [::1]:84                     : -+packets web bind 0 :3 ECONNREFUSED udp [::1]:84 unmanaged
`

// told is a decision in short.
func told(e events.Event) string {
	d := e.Decided
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	at := d.Destination
	if d.Hook == "bind" {
		at = d.Source
	}
	return fmt.Sprintf("%s %s %d :%d %s %s %s", e.Namespace, d.Hook, d.Rule, d.At.Line, or(string(d.Errno)), d.Protocol, at)
}

// watcher gathers what `sockns watch -o json` prints.
type watcher struct {
	mu   sync.Mutex
	list []events.Event
}

func (w *world) watch() *watcher {
	cmd := exec.Command("nsenter", "--net=/run/netns/"+w.netns(w.first), w.bin+"/sockns", "watch", "-o", "json")
	cmd.Env = append(os.Environ(), "SOCKNS_RUNTIME_DIR="+w.tmp+"/run")
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	w.background(cmd)
	seen := &watcher{}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e events.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Decided != nil && !e.Decided.Behind {
				seen.mu.Lock()
				seen.list = append(seen.list, e)
				seen.mu.Unlock()
			}
		}
	}()
	return seen
}

// take returns what came, once nothing has come for a while, and forgets it.
func (s *watcher) take(least int) []events.Event {
	const quiet = 400 * time.Millisecond
	for n, since, end := -1, time.Now(), time.Now().Add(5*time.Second); ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		if len(s.list) != n {
			n, since = len(s.list), time.Now()
		}
		if n >= least && time.Since(since) > quiet || time.Now().After(end) {
			list := s.list
			s.list = nil
			s.mu.Unlock()
			return list
		}
		s.mu.Unlock()
	}
}

// withoutBpffs has a command run where the syscall tier can't.
var withoutBpffs = []string{"unshare", "--mount", "sh", "-c", `umount /sys/fs/bpf 2>/dev/null; exec "$@"`, "sh"}

// TestDecisionsAreToldOnce: each kind of refusal is one event, in each tier,
// and in audit the same but for the mode.
func TestDecisionsAreToldOnce(t *testing.T) {
	for _, tier := range []string{"calls", "packets"} {
		for _, mode := range []string{"enforce", "audit"} {
			t.Run(tier+" "+mode, func(t *testing.T) { decisionsOnce(t, tier, mode) })
		}
	}
}

func decisionsOnce(t *testing.T, tier, mode string) {
	text := strings.ReplaceAll(decisionsPolicy, "$MODE", mode)
	w := newWorld(t, &txtar.Archive{Files: []txtar.File{{Name: "policy1.yaml", Data: []byte(text)}}})
	w.play("netns host\nnetns far\nlink host 10.9.0.1/24 far 10.9.0.2/24\nlink host fd09::1/64 far fd09::2/64\ncgroup web db\npolicy 1")
	c := &tierWorld{world: w}
	if tier == "packets" {
		c.run(withoutBpffs...)
	} else {
		c.run()
	}
	c.within(patience, "the policy is in force", func() bool { return strings.Contains(c.log.String(), "the policy is in force") })
	seen := w.watch()
	w.play("listen db tcp 127.0.0.1:31003")
	for _, address := range []string{"127.0.0.1", "10.9.0.1", "[::1]", "[fd09::1]"} {
		w.play("listen db tcp " + address + ":31004\nlisten db udp " + address + ":31006")
	}
	c.within(patience, "watch sees", func() bool {
		w.step(strings.Fields("connect web tcp 127.0.0.1:31001"))
		return len(seen.take(1)) > 0
	})
	time.Sleep(1100 * time.Millisecond) // what is alike is not counted with it any more
	for line := range strings.Lines(strings.TrimSpace(decisionsScript)) {
		step, expect, _ := strings.Cut(line, " : ")
		var want []string
		tiers, peers := make(map[string]string), make(map[string]string)
		for part := range strings.SplitSeq(strings.TrimSpace(expect), ";") {
			both, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
			last := strings.LastIndexByte(rest, ' ')
			rest, peer := rest[:last], rest[last+1:]
			calls, packets, _ := strings.Cut(both, "+")
			by := map[string]string{"calls": calls, "packets": packets}[tier]
			if by != "-" {
				want = append(want, rest)
				tiers[rest], peers[rest] = by, peer
			}
		}
		if len(want) == 0 && strings.HasPrefix(step, "connect") {
			continue // there is no inert socket
		}
		before := time.Now()
		w.step(strings.Fields(step))
		list := seen.take(len(want))
		var got []string
		for _, e := range list {
			d := e.Decided
			got = append(got, told(e))
			if d.Count != 1 || d.Unreported != 0 {
				t.Errorf("%s: %d times, %d unreported", step, d.Count, d.Unreported)
			}
			if e.Time.Before(before.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
				t.Errorf("%s: told as of %s, it was %s", step, e.Time, before)
			}
			wantTier := map[string]events.Tier{"calls": events.Syscalls, "packets": events.Packets}[tiers[told(e)]]
			if d.Tier != wantTier {
				t.Errorf("%s: told by %s, want %s", step, d.Tier, wantTier)
			}
			if p := d.Process; wantTier == events.Syscalls && (p == nil || p.Process != "actor" || p.PID == 0) {
				t.Errorf("%s: process %+v", step, p)
			}
			// The mark of a packet that lives on is not ours: its peer is not known.
			if lives := wantTier == events.Packets && (mode == "audit" || d.Action == "allow" || d.Mode == "audit"); !lives && d.Peer != strings.TrimPrefix(peers[told(e)], "-") {
				t.Errorf("%s: peer %q, want %s", step, d.Peer, peers[told(e)])
			}
			wantMode := mode
			if d.Action == "allow" {
				wantMode = "enforce"
			} else if d.Rule == 3 {
				wantMode = "audit"
			}
			if string(d.Mode) != wantMode {
				t.Errorf("%s: mode %s, want %s", step, d.Mode, wantMode)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +told):\n%s", step, diff)
		}
	}
}
