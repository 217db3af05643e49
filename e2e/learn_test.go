package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/e2e/roottest"
)

// Nothing is allowed and everything is in audit. The denials are the test's
// sign that somebody listens.
const learnPolicy = `apiVersion: sockns/v1
socketNamespaces:
  web:
    members: [{cgroup: $CG/web}]
    mode: audit # for now
    default: {bind: deny}
    connect:
      - {action: deny, protocol: tcp, ports: 9}
  db:
    members: [{cgroup: $CG/db}]
    mode: audit
    default: {bind: deny}
  dns:
    members: [{cgroup: $CG/dns}]
    mode: audit
  app:
    members: [{cgroup: $CG/app}]
    mode: audit
    connect:
      - {action: deny, protocol: tcp, ports: 9}
`

const learnFiles = `
-- nginx.conf --
daemon off;
error_log stderr;
pid nginx.pid;
events {}
http {
    access_log off;
    server {
        listen 80;
        listen [::]:80;
        location / { return 200 "nginx"; }
        location /files/ { proxy_pass http://127.0.0.1:8000/; }
    }
    server { listen 81; return 200 "inner"; }
}
-- files/index.html --
files of app
`

// Servers as Debian has them. $PG is where PostgreSQL's programs are.
const learnServers = `
web nginx -p . -c nginx.conf
dns dnsmasq -k -C /dev/null -x dns.pid -u root --no-resolv --no-hosts --server=10.9.0.2 --address=/www.test/192.0.2.1
-@far dnsmasq -k -C /dev/null -x far.pid -u root --no-resolv --no-hosts --address=/far.test/192.0.2.9
app python3 -m http.server 8000 --bind 127.0.0.1 --directory files
db setpriv --reuid nobody --regid nogroup --clear-groups $PG/postgres -D $DATA -k $DATA -F
`

// What they are for. Each passes in audit, and when the rules are enforced
// that were learned from it.
const learnTraffic = `
ask app curl -s http://127.0.0.1:8000/ = files of app
ask app curl -s http://127.0.0.1/ = nginx
ask app curl -s http://[::1]/ = nginx
ask -@far curl -s http://10.9.0.1/ = nginx
ask - curl -s http://127.0.0.1/files/ = files of app
ask app $PG/psql -h 127.0.0.1 -U test -tAc select(1+1) postgres = 2
ask app python3 $TMP/sslrequest.py 10.9.0.1 = b'N'
ask app dig +short +tries=1 +timeout=1 @127.0.0.1 www.test = 192.0.2.1
ask app dig +short +tries=1 +timeout=1 +tcp @127.0.0.1 www.test = 192.0.2.1
ask app dig +short +tries=1 +timeout=1 @127.0.0.1 far.test = 192.0.2.9
`

// sslRequest asks PostgreSQL for TLS (SSLRequest), and is told N: no.
const sslRequest = `
import socket, sys
s = socket.create_connection((sys.argv[1], 5432), 5)
s.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
print(s.recv(1))
`

// What nobody did meanwhile: it passes in audit, and is refused afterwards.
const learnOthers = `
web tcp 127.0.0.1:5432
dns tcp 127.0.0.1:5432
- tcp 127.0.0.1:5432
-@far tcp 10.9.0.1:5432
app tcp 127.0.0.1:81
- tcp 127.0.0.1:81
web tcp 10.9.0.2:31001
app tcp 10.9.0.2:31001
dns tcp 10.9.0.2:53
db tcp 127.0.0.1:80
- tcp 127.0.0.1:8000
db tcp 127.0.0.1:53
-@far tcp 10.9.0.1:53
app tcp 127.0.0.1:31002
app udp 127.0.0.1:31002
app tcp 127.0.0.1:31003
`

// learnWorld has a controller, and servers.
type learnWorld struct {
	*tierWorld
	pg, data string
	running  []*exec.Cmd
}

// TestLearned: what real servers and clients did in audit passes under the
// rules that were learned from it, in enforce, and other things do not.
func TestLearned(t *testing.T) {
	archive := txtar.Parse([]byte(learnFiles))
	archive.Files = append(archive.Files,
		txtar.File{Name: "policy1.yaml", Data: []byte(learnPolicy)}, txtar.File{Name: "sslrequest.py", Data: []byte(sslRequest)})
	w := &learnWorld{tierWorld: &tierWorld{world: newWorld(t, archive)}}
	w.cluster()
	w.play("netns host\nnetns far\nlink host 10.9.0.1/24 far 10.9.0.2/24\ncgroup web db dns app\npolicy 1")
	w.run()
	w.inForce()

	seen := w.tmp + "/seen.json"
	watch := w.listener("watch", "-o", "json")
	app := w.listener("learn", "app", "-f", w.policy, "--write")
	web := w.listener("learn", "web", "-f", w.policy, "--for", "1h", "-o", "json")
	w.within(patience*5, "everybody listens", func() bool {
		w.play("connect app tcp 127.0.0.1:9\nconnect web tcp 127.0.0.1:9")
		return strings.Contains(app.said.String(), "seen: app connect") && strings.Contains(web.said.String(), "seen: web connect") &&
			strings.Contains(watch.out.String(), `"web"`)
	})
	w.servers()
	w.traffic()

	web.interrupt()
	app.interrupt()
	app.ends()
	web.ends()
	watch.interrupt()
	watch.ends()
	if err := os.WriteFile(seen, []byte(watch.out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	before := w.tmp + "/before.yaml"
	w.must("cp", w.policy, before)
	for _, name := range []string{"web", "db", "dns"} {
		w.play("sockns learn " + name + " -f $POLICY --from " + seen + " --write = 0")
	}
	w.sameRules(web.out.String(), seen, before)

	// It is in audit still.
	w.play("listen -@far tcp 10.9.0.2:31001\nlisten - tcp 127.0.0.1:31002\nlisten - udp 127.0.0.1:31002\nlisten web tcp 127.0.0.1:31003")
	for flow, got := range w.others() {
		if got == "ECONNREFUSED" {
			t.Errorf("in audit: %s: %s", flow, got)
		}
	}
	for _, name := range []string{"web", "db", "dns", "app"} {
		w.play("sockns learn " + name + " -f $POLICY --from " + seen + " --enforce --write = 0")
	}
	text, _ := os.ReadFile(w.policy)
	t.Logf("learned:\n%s", text)
	if strings.Contains(string(text), "audit") {
		t.Errorf("audit has not ended")
	}
	w.inForce()
	for flow, got := range w.others() {
		if got != "ECONNREFUSED" {
			t.Errorf("enforced: %s: %s", flow, got)
		}
	}
	w.traffic()
	w.servers() // their binds
	w.traffic()
	w.drawn()
}

// cluster makes a cluster of PostgreSQL for nobody.
func (w *learnWorld) cluster() {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		roottest.Miss(w, "PostgreSQL: make testtools")
	}
	w.pg = filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "sockns-pg") // where nobody may go
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { os.RemoveAll(dir) })
	nobody, err := user.Lookup("nobody")
	if err != nil {
		w.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		w.Fatal(err)
	}
	w.data = dir
	w.must("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", w.pg+"/initdb", "-D", dir, "-U", "test", "-A", "trust", "--no-sync")
	config := "listen_addresses = '*'\nunix_socket_directories = ''\nshared_buffers = 1MB\nautovacuum = off\n"
	if err := os.WriteFile(dir+"/postgresql.auto.conf", []byte(config), 0o644); err != nil {
		w.Fatal(err)
	}
}

func (w *learnWorld) expand(script string) string {
	return strings.NewReplacer("$PG", w.pg, "$DATA", w.data, "$TMP", w.tmp).Replace(script)
}

// servers starts the servers, anew if they run.
func (w *learnWorld) servers() {
	for _, s := range w.running {
		_ = s.Process.Signal(syscall.SIGTERM)
	}
	for _, s := range w.running {
		_ = s.Wait()
	}
	w.running = nil
	for line := range strings.Lines(strings.TrimSpace(w.expand(learnServers))) {
		words := strings.Fields(line)
		dir, ns, _ := w.place(words[0])
		cmd := exec.Command(w.bin+"/actor", append([]string{"exec", dir, ns}, words[1:]...)...)
		cmd.Dir = w.tmp
		w.background(cmd, io.Discard)
		w.running = append(w.running, cmd)
	}
	w.within(20*time.Second, "the servers listen", func() bool {
		near := w.must("nsenter", "--net=/run/netns/"+w.netns("host"), "ss", "-Hltn")
		far := w.must("nsenter", "--net=/run/netns/"+w.netns("far"), "ss", "-Hltn")
		missing := !strings.Contains(far, ":53 ")
		for _, port := range []string{":80 ", ":81 ", ":8000 ", ":5432 ", ":53 "} {
			missing = missing || !strings.Contains(near, port)
		}
		return !missing
	})
}

// traffic has the servers used. What fails is not gone on from: each client
// is asked for half a minute.
func (w *learnWorld) traffic() {
	w.Helper()
	for line := range strings.Lines(strings.TrimSpace(w.expand(learnTraffic))) {
		w.play(line)
		if w.Failed() {
			w.FailNow()
		}
	}
}

// others does what was not learned, and returns what came of each.
func (w *learnWorld) others() map[string]string {
	var mu sync.Mutex
	var all sync.WaitGroup
	got := make(map[string]string)
	for line := range strings.Lines(strings.TrimSpace(learnOthers)) {
		all.Go(func() {
			outcome := w.step(append([]string{"connect"}, strings.Fields(line)...))
			mu.Lock()
			defer mu.Unlock()
			got[strings.TrimSpace(line)] = outcome
		})
	}
	all.Wait()
	return got
}

// inForce waits until the kernel has the policy of the file.
func (w *learnWorld) inForce() {
	w.Helper()
	w.within(10*time.Second, "the policy is in force", func() bool {
		return w.sockns([]string{"plan", "--detailed-exitcode", "-f", w.policy}) == "0"
	})
}

// sameRules compares the rules of web that were learned live with those that
// were learned from a file, for a policy.
func (w *learnWorld) sameRules(live, seen, policy string) {
	w.Helper()
	out, err := w.command("learn", "web", "-f", policy, "--from", seen, "-o", "json").Output()
	if err != nil {
		w.Fatal(err)
	}
	var got, want struct{ Rules []struct{ Hook, Rule string } }
	if err := errors.Join(json.Unmarshal(out, &want), json.Unmarshal([]byte(live), &got)); err != nil {
		w.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got.Rules) == 0 {
		w.Errorf("learned live and from a file: %s", diff)
	}
}

// drawn looks for the traffic and for what was refused in the live graph.
func (w *learnWorld) drawn() {
	w.Helper()
	out, err := w.command("graph", "--live", "-o", "json").Output()
	if err != nil {
		w.Fatal(err)
	}
	var g struct {
		Edges []struct {
			From, To string
			Hits     struct{ N uint64 }
			Refused  []struct {
				Protocol, By string
				Port         uint16
				Count        uint64
			}
		}
	}
	if err := json.Unmarshal(out, &g); err != nil {
		w.Fatal(err)
	}
	hits, refused := make(map[string]bool), make(map[string]bool)
	for _, e := range g.Edges {
		hits[e.From+">"+e.To] = e.Hits.N > 0
		for _, r := range e.Refused {
			refused[fmt.Sprintf("%s>%s %s/%d by %s", e.From, e.To, r.Protocol, r.Port, r.By)] = r.Count > 0
		}
	}
	for _, edge := range []string{"app>web", "app>db", "app>dns", "web>app", "dns>10.9.0.2", "10.9.0.2>web"} {
		if !hits[edge] {
			w.Errorf("no hits on %s", edge)
		}
	}
	for _, r := range []string{
		"web>db tcp/5432 by web connect default", "dns>db tcp/5432 by dns connect default", "app>web tcp/81 by app connect default",
		"unmanaged@host>db tcp/5432 by db accept default", "elsewhere>db tcp/5432 by db accept default", "app>elsewhere tcp/31001 by app connect default",
	} {
		if !refused[r] {
			w.Errorf("not drawn as refused: %s", r)
		}
	}
	if w.Failed() {
		w.Logf("%s", out)
	}
}

// listener is a command that hears what the controller tells until it is
// interrupted.
type listener struct {
	*testing.T
	cmd       *exec.Cmd
	out, said lockedBuffer
}

func (w *learnWorld) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + w.netns(w.first), w.bin + "/sockns"}, args...)...)
	cmd.Env = append(os.Environ(), "SOCKNS_RUNTIME_DIR="+w.tmp+"/run")
	return cmd
}

func (w *learnWorld) listener(args ...string) *listener {
	l := &listener{T: w.T, cmd: w.command(args...)}
	l.cmd.Stdout = &l.out
	w.background(l.cmd, &l.said)
	return l
}

func (l *listener) interrupt() { _ = l.cmd.Process.Signal(os.Interrupt) }

// ends waits for the end.
func (l *listener) ends() {
	l.Helper()
	if err := l.cmd.Wait(); err != nil {
		l.Errorf("%s: %v", l.cmd, err)
	}
	l.Logf("%s\n%s", l.cmd, l.said.String())
}
