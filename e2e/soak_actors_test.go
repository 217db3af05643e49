package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/sockns/sockns/model"
)

// soakClients are those who probe: the namespaces that they may be in, and in
// which device namespace.
var soakClients = map[string]probe{
	"a":        {class: "call", device: "host", from: []string{"a"}, calls: true, lasting: true},
	"b":        {class: "call", device: "host", from: []string{"b"}, calls: true, lasting: true},
	"stranger": {class: "packet", device: "host", from: []string{""}, lasting: true},
	"web":      {class: "restarted", device: "host", from: []string{"web", "prod"}, calls: true},
	"bc":       {class: "blue", device: "blue", from: []string{"bc"}, lasting: true},
	"blue":     {class: "blue", device: "blue", from: []string{""}, lasting: true},
}

// flows are what a client tries.
func (s *soak) flows(client string) (list []probe) {
	p := soakClients[client]
	add := func(to []string, ports ...int) {
		for _, port := range ports {
			p.protocol, p.to, p.port = model.TCP, to, port
			list = append(list, p)
			if p.device == "host" && (port == soakFirst || port == soakCanary) { // db listens there for datagrams too
				p.protocol = model.UDP
				list = append(list, p)
			}
		}
	}
	if p.device == "blue" {
		add([]string{"bd"}, soakFirst, soakLast, soakCanary)
		return list
	}
	add([]string{"db"}, soakFirst, soakFirst+1, soakFirst+2, soakLast, soakCanary)
	add([]string{""}, soakOther)
	p.lasting = false
	add([]string{"web", "prod"}, soakWeb)
	return list
}

// probe has a client try again and again.
func (s *soak) probe(client string) {
	flows := s.flows(client)
	for i := 0; ; i++ {
		select {
		case <-s.ended:
			return
		case <-time.After(3 * time.Millisecond):
		}
		p := s.ledger.begin(flows[i%len(flows)])
		kind := "connect-tcp"
		if p.protocol == model.UDP {
			kind = "sendto-udp"
		}
		if outcome := s.ask(client, kind, p.port); outcome != gone {
			s.ledger.judge(p, outcome)
		}
	}
}

// gone is the outcome of a client that was dismissed.
const gone = "gone"

// ask has a client make a call.
func (s *soak) ask(client, kind string, port int) string {
	s.mu.Lock()
	a := s.actors[client]
	s.mu.Unlock()
	if a == nil {
		return gone
	}
	return a.ask(fmt.Sprintf("%s 127.0.0.1:%d", kind, port))
}

// actor is a process of a cgroup and a network namespace.
type actor struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	tell  io.Writer
	hears *bufio.Reader
}

// employ starts one, and waits until a server listens.
func (s *soak) employ(name, cgroup, netns, verb string, args ...string) error {
	dir := "-"
	if cgroup != "-" {
		dir = s.base + "/" + cgroup
	}
	a := &actor{cmd: exec.Command(s.bin+"/actor", append([]string{verb, dir, "/run/netns/" + s.netns(netns)}, args...)...)}
	a.cmd.Stderr = os.Stderr
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if a.tell, err = a.cmd.StdinPipe(); err != nil {
		return err
	}
	a.hears = bufio.NewReader(out)
	if err := a.cmd.Start(); err != nil {
		return err
	}
	if verb == "listen" {
		if said, _ := a.hears.ReadString('\n'); said != "ok\n" {
			_ = a.cmd.Process.Kill()
			_ = a.cmd.Wait()
			return fmt.Errorf("%s %s: %q", name, args, said)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.actors[name] = a
	return nil
}

// ask asks for a call and returns what came of it.
func (a *actor) ask(line string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := fmt.Fprintln(a.tell, line); err != nil {
		return gone
	}
	said, err := a.hears.ReadString('\n')
	if err != nil {
		return gone
	}
	return strings.TrimSpace(said)
}

// dismiss ends one.
func (s *soak) dismiss(name string) {
	s.mu.Lock()
	a := s.actors[name]
	delete(s.actors, name)
	s.mu.Unlock()
	if a != nil {
		_ = a.cmd.Process.Kill()
		a.mu.Lock() // who asks it has the answer that there is none
		defer a.mu.Unlock()
		_ = a.cmd.Wait()
	}
}
