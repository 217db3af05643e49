package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
)

var (
	soakTime = flag.Duration("soak", 15*time.Second, "how long TestSoak goes on")
	soakSeed = flag.Uint64("seed", 0, "what TestSoak does; 0: another each time")
	soakRace = flag.Bool("soak.race", false, "TestSoak builds the controller with the race detector")
)

// TestSoak has cgroups be born and die, policies be edited and broken, others
// change and flush nftables, the controller be killed, and a network namespace
// go and come back, all at the same time, while real sockets try what the
// policies allow and refuse. At no time is an end of a flow decided otherwise
// than by a policy that was in force; and once it is quiet, the kernel is as
// the policy says.
//
// What others do to nftables opens the packets until it is repaired. Flows that
// only packets can refuse are not judged meanwhile; the calls of sockets in a
// socket namespace are, as the syscall tier answers them.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()>>1 | 1
	}
	t.Logf("seed %d: go test ./e2e -run TestSoak -v -soak %v -seed %d", seed, *soakTime, seed)
	s := newSoak(t, seed)
	phase := 0
	for end := time.Now().Add(*soakTime); time.Now().Before(end) && !t.Failed(); phase++ {
		h := soakPhase(seed, phase)
		s.play(h)
		s.mend()
		s.compare()
		s.once(h)
		s.compare()
		s.ledger.accuse(t)
		if t.Failed() {
			t.Logf("seed %d, phase %d, in which this was done:\n%s\nThe controller said:\n%s", seed, phase, h, s.daemon.lastLines(200))
		}
	}
	t.Logf("%d phases: %s; the controller: %s", phase, s.ledger, s.daemon)
	for _, want := range []string{"call refused", "call allowed", "packet refused", "packet allowed", "restarted refused", "newborn refused", "blue refused"} {
		if s.ledger.count(want) == 0 && !t.Failed() {
			t.Errorf("nothing was judged that is %s", want)
		}
	}
}

// soak is the world of TestSoak.
type soak struct {
	*world
	ledger   *ledger
	observer *observer
	daemon   *daemon
	text     []byte // of the policy that was written last and holds no error
	last     *model.Policy
	blue     bool          // is there
	ended    chan struct{} // the end of what looks and probes
	work     sync.WaitGroup

	mu     sync.Mutex
	actors map[string]*actor // by name
}

func newSoak(t *testing.T, seed uint64) *soak {
	s := &soak{world: newWorld(t, &txtar.Archive{}), ledger: newLedger(), ended: make(chan struct{}), actors: make(map[string]*actor)}
	s.addNetns("host", nil)
	s.step(strings.Fields("cgroup a b db prod prod/web users bc bd x"))
	s.edit(deed{what: "rename", text: drawPolicy(rand.New(rand.NewPCG(seed, 0)))})
	s.daemon = newDaemon(s.world, *soakRace)
	t.Cleanup(func() { s.daemon.stop(unix.SIGTERM) })
	if !s.daemon.start() {
		t.Fatalf("the controller does not start:\n%s", s.daemon.lastLines(50))
	}
	s.observer = observe(t, s.netns(s.first))
	t.Cleanup(func() {
		close(s.ended)
		s.work.Wait()
		for name := range s.actors {
			s.dismiss(name)
		}
		s.removeBlue()
	})
	for _, port := range []int{soakFirst, soakFirst + 1, soakFirst + 2, soakLast, soakCanary} {
		s.need(s.employ(fmt.Sprint("db", port), "db", "host", "listen", "tcp", fmt.Sprint("127.0.0.1:", port), "db"))
	}
	for _, port := range []int{soakFirst, soakCanary} {
		s.need(s.employ(fmt.Sprint("udp", port), "db", "host", "listen", "udp", fmt.Sprint("127.0.0.1:", port), "db"))
	}
	s.need(s.employ("other", "-", "host", "listen", "tcp", fmt.Sprint("127.0.0.1:", soakOther), "other"))
	for _, client := range []string{"a", "b"} {
		s.need(s.employ(client, client, "host", "call"))
	}
	s.need(s.employ("stranger", "-", "host", "call"))
	s.need(s.web())
	s.need(s.addBlue())
	s.compare()
	s.work.Go(s.look)
	for _, client := range []string{"a", "b", "stranger", "web", "bc", "blue"} {
		s.work.Go(func() { s.probe(client) })
	}
	return s
}

func (s *soak) need(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// play does what a phase says, all hands at the same time.
func (s *soak) play(h hands) {
	var wait sync.WaitGroup
	for list, do := range map[*[]deed]func(deed){
		&h.edits: s.edit, &h.births: s.birth, &h.foreign: s.foreign, &h.kills: s.kill, &h.netns: s.remake, &h.services: s.service,
	} {
		wait.Go(func() {
			for _, d := range *list {
				time.Sleep(d.pause)
				do(d)
			}
		})
	}
	wait.Wait()
}

// edit changes the policy file.
func (s *soak) edit(d deed) {
	text := strings.NewReplacer("$CG", "/"+s.tag, "$BLUE", s.netns("blue"), "$UNIT", s.unit()).Replace(fill(d.text, 2*(len(s.ledger.versions)%30)))
	if p, diags := model.Parse([]model.File{{Name: s.policy, Data: []byte(text)}}); !diags.HasErrors() && d.what != "vanish" {
		s.text, s.last = []byte(text), p
		s.ledger.write(p)
	}
	var err error
	switch d.what {
	case "vanish":
		if err = os.Remove(s.policy); os.IsNotExist(err) {
			err = nil
		}
	case "save", "half":
		err = os.WriteFile(s.policy, []byte(text), 0o600)
	default:
		if err = os.WriteFile(s.policy+".new", []byte(text), 0o600); err == nil {
			err = os.Rename(s.policy+".new", s.policy)
		}
	}
	s.check(err)
}

func (s *soak) unit() string { return s.tag + ".service" }

func (s *soak) check(err error) {
	s.Helper()
	if err != nil {
		s.Error(err)
	}
}

// birth makes a cgroup, and has a process of it try what it may.
func (s *soak) birth(d deed) {
	dir := func(name string) string { return filepath.Join(s.base, "users", name) }
	if d.what == "storm" {
		for i := range 100 {
			name := dir(fmt.Sprintf("%s%d", []string{"u-storm", "s"}[i%2], i%7))
			s.check(os.Mkdir(name, 0o755))
			s.check(os.Remove(name))
		}
		return
	}
	name, from := fmt.Sprint("u-", d.n), fmt.Sprint("user/", d.n)
	p := probe{class: "newborn", protocol: model.TCP, device: "host", from: []string{from}, to: []string{"db"}}
	if d.what == "other" {
		name, p.class, p.from = fmt.Sprint("other-", d.n), "packet", []string{""}
	}
	s.check(vacate(dir(name)))
	s.check(os.Mkdir(dir(name), 0o755))
	cmd := exec.Command(s.bin+"/actor", "call", dir(name), "/run/netns/"+s.netns("host"))
	var probes []probe
	var lines strings.Builder
	for _, port := range []int{soakFirst + d.n%4, soakFirst + (d.n+1)%4, soakCanary} {
		p.port = port
		probes = append(probes, s.ledger.begin(p))
		fmt.Fprintf(&lines, "connect-tcp 127.0.0.1:%d\n", port)
	}
	cmd.Stdin = strings.NewReader(lines.String())
	out, err := cmd.Output()
	s.check(err)
	for i, outcome := range strings.Fields(string(out)) {
		s.ledger.judge(probes[i], outcome)
	}
	if d.n%2 == 0 {
		s.check(vacate(dir(name)))
	}
}

// vacate removes a cgroup whose processes are leaving, if it is there.
func vacate(dir string) error {
	err := os.Remove(dir)
	for end := time.Now().Add(20 * time.Second); err != nil && !os.IsNotExist(err) && time.Now().Before(end); err = os.Remove(dir) {
		time.Sleep(time.Millisecond)
	}
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// foreign has somebody else change nftables.
func (s *soak) foreign(d deed) {
	over := s.ledger.disturb(d.what)
	args := append([]string{"--net=/run/netns/" + s.netns(d.what), "nft"}, strings.Fields(d.text)...)
	_ = exec.Command("nsenter", args...).Run() // what it names may not be there
	s.settle(over)
}

// settle waits, beside what goes on, until what was done before is repaired.
func (s *soak) settle(over func()) {
	began := time.Now()
	s.work.Go(func() {
		defer over()
		s.daemon.lookedSince(s.ended, func() bool { return s.observer.equals(s.ledger.possible()) })
		s.ledger.took(time.Since(began))
	})
}

// kill ends the controller, and starts another a while later.
func (s *soak) kill(d deed) {
	switch d.what {
	case "hangup":
		s.daemon.signal(unix.SIGHUP)
		return
	case "stop":
		s.daemon.stop(unix.SIGTERM)
	default:
		s.daemon.stop(unix.SIGKILL)
	}
	time.Sleep(time.Duration(d.n) * time.Millisecond)
	for i := 0; i < 20 && !s.daemon.start(); i++ { // it does not while the files are broken
		time.Sleep(50 * time.Millisecond)
	}
}

// remake removes a network namespace, and makes it again unless it is away for
// a while.
func (s *soak) remake(d deed) {
	s.removeBlue()
	time.Sleep(time.Duration(d.n) * time.Millisecond)
	if d.what == "remake" {
		s.check(s.addBlue())
	}
}

// addBlue makes the other network namespace, and those who are in it.
func (s *soak) addBlue() error {
	over := s.ledger.disturb("blue")
	defer s.settle(over)
	ns := s.netns("blue")
	for _, args := range [][]string{{"netns", "add", ns}, {"-n", ns, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	s.blue = true
	for _, port := range []int{soakFirst, soakLast, soakCanary} {
		if err := s.employ(fmt.Sprint("bd", port), "bd", "blue", "listen", "tcp", fmt.Sprint("127.0.0.1:", port), "bd"); err != nil {
			return err
		}
	}
	if err := s.employ("bc", "bc", "blue", "call"); err != nil {
		return err
	}
	return s.employ("blue", "-", "blue", "call")
}

func (s *soak) removeBlue() {
	if !s.blue {
		return
	}
	s.blue = false
	for _, name := range []string{"bc", "blue", fmt.Sprint("bd", soakFirst), fmt.Sprint("bd", soakLast), fmt.Sprint("bd", soakCanary)} {
		s.dismiss(name)
	}
	s.must("ip", "netns", "del", s.netns("blue"))
}

// service restarts one whose cgroup is below another member's, or has one of a
// unit or deep below come or go.
func (s *soak) service(d deed) {
	toggle := func(dirs ...string) {
		if err := os.Mkdir(dirs[0], 0o755); err == nil {
			for _, dir := range dirs[1:] {
				s.check(os.Mkdir(dir, 0o755))
			}
			return
		}
		for _, dir := range slices.Backward(dirs) {
			s.check(vacate(dir))
		}
	}
	switch d.what {
	case "web":
		s.check(s.web())
	case "unit":
		toggle(filepath.Join(s.base, "x", s.unit()))
	case "later":
		toggle(filepath.Join(s.base, "later"), filepath.Join(s.base, "later", "b"))
	}
}

// web starts web's server and client, in a cgroup that is new.
func (s *soak) web() error {
	s.dismiss("web")
	s.dismiss("webserver")
	dir := filepath.Join(s.base, "prod/web")
	if err := vacate(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := s.employ("webserver", "prod/web", "host", "listen", "tcp", fmt.Sprint("127.0.0.1:", soakWeb), "web"); err != nil {
		return err
	}
	return s.employ("web", "prod/web", "host", "call")
}

// mend ends what a phase left half done.
func (s *soak) mend() {
	if !s.blue {
		s.check(s.addBlue())
	}
	if text, err := os.ReadFile(s.policy); err != nil || string(text) != string(s.text) {
		s.check(os.WriteFile(s.policy, s.text, 0o600))
	}
	if !s.daemon.start() {
		s.Error("the controller does not start")
	}
}

// once does the first thing of each hand again, with nothing after it that
// would have the controller look at everything.
func (s *soak) once(h hands) {
	s.birth(h.births[0])
	s.service(h.services[0])
	if len(h.foreign) > 0 {
		s.foreign(h.foreign[0])
	} else if len(h.netns) > 0 {
		s.remake(deed{what: "remake"})
	}
}

// compare waits until all is quiet, and compares it with the policy.
func (s *soak) compare() {
	began := time.Now()
	for !s.observer.equals([]*model.Policy{s.last}) || !s.ledger.calm() {
		if time.Since(began) > 30*time.Second {
			s.Errorf("30 s after all was quiet the kernel is not as the policy says: %s\n%s", s.observer.differs(s.last), s.text)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	state, err := s.daemon.state()
	if err != nil || state.Failing != nil || state.Policy.Broken != nil || state.ResyncFound != 0 {
		s.Errorf("state: %+v, %v", state, err)
		return
	}
	users, _ := filepath.Glob(filepath.Join(s.base, "users", "u-*"))
	known := 0
	for _, d := range state.Devices {
		for name := range d.Members {
			if strings.HasPrefix(name, "user/") {
				known++
			}
		}
	}
	if known != len(users) {
		s.Errorf("the controller knows %d users, and there are %d", known, len(users))
	}
	for client := range soakClients {
		for _, p := range s.flows(client) {
			if p.protocol != model.TCP {
				continue
			}
			p.from, p.to = p.from[:1], p.to[:1]
			got := s.ask(client, "connect-tcp", p.port)
			d := decide(s.last, p, p.from[0], p.to[0])
			if (got == "ok") != d.Allowed() {
				s.Errorf("quiet: %s -> %s:%d: %s, and the policy says %q\n%s", p.from, p.to, p.port, got, d.Error(), s.text)
			}
		}
	}
}
