package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

const floodPolicy = `apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: $CG/web}]
    connect:
      - {action: deny, error: EACCES, protocol: udp, ports: 99}
      - {action: deny, audit: true, protocol: udp, ports: 101}
      - {protocol: udp, ports: [100, 101], to: db}
      - {protocol: udp, ports: 102, to: db, log: true}
  api:
    members: [{cgroup: $CG/api}]
    connect:
      - {protocol: udp, ports: 100, to: db}
  db:
    members: [{cgroup: $CG/db}]
    accept: [{protocol: udp, ports: [101, 102], from: web}]
`

// TestFloodIsToldWhole: what is told one by one and what is told as a number
// are together all that was decided, by namespace and rule.
func TestFloodIsToldWhole(t *testing.T) {
	const n = 20000
	for _, tier := range []string{"calls", "packets"} {
		t.Run(tier, func(t *testing.T) {
			w := newWorld(t, &txtar.Archive{Files: []txtar.File{{Name: "policy1.yaml", Data: []byte(floodPolicy)}}})
			w.play("netns host\ncgroup web api db\npolicy 1")
			c := &tierWorld{world: w}
			if tier == "packets" {
				c.run(withoutBpffs...)
			} else {
				c.run()
			}
			c.within(10*time.Second, "the policy is in force", func() bool { return strings.Contains(c.log.String(), "the policy is in force") })
			seen := w.watch()
			w.play("listen db udp 127.0.0.1:99\nlisten db udp 127.0.0.1:100\nlisten db udp 127.0.0.1:101\nlisten db udp 127.0.0.1:102")
			c.within(10*time.Second, "watch sees", func() bool {
				w.step(strings.Fields("connect api udp 127.0.0.1:9"))
				return len(seen.take(1)) > 0
			})
			want := make(map[string]uint64)
			for _, f := range []struct {
				who, to, rule string
				call          bool // is refused, where there are calls
			}{
				{"web", "99", "web connect 1", true},
				{"web", "100", "db accept 0", true},
				{"-", "100", "db accept 0", false},
				{"api", "99", "api connect 0", true},
				{"web", "101", "web connect 2", false},
				{"web", "102", "web connect 4", false},
			} {
				dir, ns, _ := w.place(f.who)
				out := w.must(w.bin+"/actor", "flood", dir, ns, "127.0.0.1:"+f.to, strconv.Itoa(n))
				if refused := tier == "calls" && f.call; refused && strings.TrimSpace(out) != strconv.Itoa(n) {
					t.Errorf("%s to %s: %s calls were refused", f.who, f.to, out)
				}
				want[f.rule] += n
			}
			got := make(map[string]uint64)
			told := 0
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && cmp.Diff(want, got) != ""; {
				for _, e := range seen.take(1) {
					d := e.Decided
					if d.Protocol == "udp" && d.Destination.Port() == 9 {
						continue
					}
					told++
					got[e.Namespace+" "+d.Hook+" "+strconv.Itoa(d.Rule)] += d.Count + d.Unreported
				}
			}
			time.Sleep(5 * time.Second) // long enough for more than there was
			for _, e := range seen.take(0) {
				got[e.Namespace+" "+e.Decided.Hook+" "+strconv.Itoa(e.Decided.Rule)] += e.Decided.Count + e.Decided.Unreported
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-decided +told):\n%s", diff)
			}
			if told > n/10 {
				t.Errorf("%d events for %d decisions", told, 6*n)
			}
		})
	}
}
