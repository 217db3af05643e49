package conform

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/syscalls"
)

// Machine is a world on the kernel: network namespaces, cgroups and processes
// of its own, all gone after Close. The goroutine that opened it, and no other,
// may use it.
type Machine struct {
	World *World
	// Calls says that the syscall tier is in use; else packets alone decide.
	Calls   bool
	tag     string
	dir     string // of its cgroup
	host    *controller.Host
	conns   map[string]*nft.Conn // by device, where packets alone decide
	workers map[string]*worker   // by cgroup
}

// worker is a process that makes sockets in one cgroup.
type worker struct {
	cmd *exec.Cmd
	in  io.Closer
	to  *gob.Encoder
	out *gob.Decoder
}

var machines atomic.Int64

// OpenMachine makes a machine. The calling goroutine has to be locked to its
// thread, which enters network namespaces and is of no use afterwards.
func OpenMachine(w *World, calls bool) (m *Machine, err error) {
	tree, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	m = &Machine{
		World: w, Calls: calls, conns: make(map[string]*nft.Conn), workers: make(map[string]*worker),
		tag: fmt.Sprintf("sockns-conform-%d-%d", os.Getpid(), machines.Add(1)),
	}
	m.dir = tree.Dir("/" + m.tag)
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
			m = nil
		}
	}()
	for _, c := range Cgroups {
		if err := os.MkdirAll(filepath.Join(m.dir, c), 0o755); err != nil {
			return m, err
		}
	}
	if err := m.network(); err != nil {
		return m, err
	}
	for _, c := range Cgroups {
		if m.workers[c], err = m.start(c); err != nil {
			return m, err
		}
	}
	if err := m.listen(); err != nil {
		return m, err
	}
	if err := m.enter(0); err != nil {
		return m, err
	}
	m.host, err = controller.OpenHost()
	return m, err
}

func (m *Machine) netns(device string) string { return "/run/netns/" + m.tag + "-" + device }

func (m *Machine) enter(device int) error {
	f, err := os.Open(m.netns(m.World.Devices[device].Name))
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// sysctls take the kernel's bounds off ICMP errors, and keep the ports that it
// picks apart from those of policies.
var sysctls = map[string]string{
	"net/ipv4/icmp_ratelimit":      "0",
	"net/ipv4/icmp_ratemask":       "0",
	"net/ipv4/icmp_msgs_per_sec":   "1000000",
	"net/ipv4/icmp_msgs_burst":     "100000",
	"net/ipv6/icmp/ratelimit":      "0",
	"net/ipv4/ip_local_port_range": fmt.Sprint(EphemeralFirst, " ", EphemeralLast),
}

// network makes the network namespaces, each with a link to each other one.
func (m *Machine) network() error {
	batches := make(map[string][]string)
	for i, d := range m.World.Devices {
		ns := m.tag + "-" + d.Name
		if err := run("", "ip", "netns", "add", ns); err != nil {
			return err
		}
		if err := m.enter(i); err != nil {
			return err
		}
		for name, value := range sysctls {
			if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		batches[ns] = append(batches[ns], "link set lo up")
		for _, a := range d.Addresses {
			nodad := ""
			if a.Is6() {
				nodad = " nodad"
			}
			batches[ns] = append(batches[ns], fmt.Sprintf("addr add %s/%d dev lo%s", a, a.BitLen(), nodad))
		}
	}
	link := 0
	for i, a := range m.World.Devices {
		for _, b := range m.World.Devices[i+1:] {
			link++
			from, to := m.tag+"-"+a.Name, m.tag+"-"+b.Name
			if err := run("", "ip", "-n", from, "link", "add", "to-"+b.Name, "type", "veth", "peer", "name", "to-"+a.Name, "netns", to); err != nil {
				return err
			}
			batches[from] = append(batches[from], join(a, b, link, 1, 2)...)
			batches[to] = append(batches[to], join(b, a, link, 2, 1)...)
		}
	}
	for ns, batch := range batches {
		if err := run(strings.Join(batch, "\n"), "ip", "-n", ns, "-batch", "-"); err != nil {
			return err
		}
	}
	return nil
}

// join returns the commands that lead from one device's end of a link to the
// other's addresses.
func join(from, to Device, link, here, there int) []string {
	dev := "to-" + to.Name
	list := []string{
		fmt.Sprintf("addr add 10.9.%d.%d/24 dev %s", link, here, dev),
		fmt.Sprintf("addr add fd09:%x::%x/64 dev %s nodad", link, here, dev),
		"link set " + dev + " up",
	}
	for _, a := range to.Addresses {
		via := fmt.Sprintf("fd09:%x::%x", link, there)
		if a.Is4() {
			via = fmt.Sprintf("10.9.%d.%d", link, there)
		}
		list = append(list, fmt.Sprintf("route add %s/%d via %s dev %s src %s", a, a.BitLen(), via, dev, first(from, a.Is4())))
	}
	return list
}

func run(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (m *Machine) start(cgroup string) (*worker, error) {
	dir := "-"
	if cgroup != "" {
		dir = filepath.Join(m.dir, cgroup)
	}
	args := []string{dir, nameOf(cgroup)}
	for _, d := range m.World.Devices {
		args = append(args, m.netns(d.Name))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workerVariable+"="+strings.Join(args, "\n"))
	cmd.Stderr = os.Stderr
	// Not Pdeathsig: it is sent when the thread that started it ends.
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &worker{cmd, in, gob.NewEncoder(in), gob.NewDecoder(out)}, cmd.Start()
}

// listen opens the listening sockets of a world that is not fresh.
func (m *Machine) listen() error {
	list := slices.Clone(m.World.Listeners)
	slices.SortStableFunc(list, func(a, b Listener) int { return strings.Compare(a.Cgroup, b.Cgroup) })
	said, err := m.Listen(list)
	for i, l := range list {
		if err == nil && said[i] != Ok {
			err = fmt.Errorf("%s: listen %v: %s", nameOf(l.Cgroup), l.Address, said[i])
		}
	}
	return err
}

// Silence closes all that listens.
func (m *Machine) Silence() error {
	orders := make(map[string]order)
	for _, c := range Cgroups {
		orders[c] = order{Close: true}
	}
	_, err := m.ask(orders)
	return err
}

// Listen has sockets listen, one after the other, and returns what each sees.
func (m *Machine) Listen(list []Listener) ([]string, error) {
	said := make([]string, 0, len(list))
	for len(list) > 0 {
		cgroup := list[0].Cgroup
		var o order
		for len(list) > 0 && list[0].Cgroup == cgroup {
			o.Listen = append(o.Listen, socket{list[0].Device, list[0].Protocol, list[0].Address})
			list = list[1:]
		}
		answers, err := m.ask(map[string]order{cgroup: o})
		if err != nil {
			return nil, err
		}
		said = append(said, answers[cgroup].Outcomes...)
	}
	return said, nil
}

// ask gives workers their orders, all at the same time.
func (m *Machine) ask(orders map[string]order) (map[string]answer, error) {
	for c, o := range orders {
		if err := m.workers[c].to.Encode(o); err != nil {
			return nil, fmt.Errorf("worker %s: %w", nameOf(c), err)
		}
	}
	answers := make(map[string]answer)
	for c := range orders {
		var a answer
		if err := m.workers[c].out.Decode(&a); err != nil {
			return nil, fmt.Errorf("worker %s: %w", nameOf(c), err)
		}
		answers[c] = a
	}
	return answers, nil
}

// Apply puts a policy of the world in force.
func (m *Machine) Apply(text string) error {
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(m.World.Place(text, "/"+m.tag, m.netns))}})
	if diagnostics.HasErrors() {
		return fmt.Errorf("%v", diagnostics)
	}
	if m.Calls {
		p.Syscalls = model.SyscallsRequired
		plan, err := m.host.Plan(p)
		if err != nil {
			return err
		}
		return m.host.Apply(plan)
	}
	program, err := m.host.Compile(p)
	if err != nil {
		return err
	}
	for _, d := range program.Devices {
		if err := m.load(d.Name, d.Table); err != nil {
			return err
		}
	}
	return nil
}

// ForgetClaims has the tier, if it is there, forget who asked for loopback
// addresses, which it knows for 10 s: longer than a policy is in force here.
func (m *Machine) ForgetClaims() error {
	if !m.Calls {
		return nil
	}
	dir, err := syscalls.MountBpffs()
	if err != nil {
		return err
	}
	claims, err := ebpf.LoadPinnedMap(filepath.Join(dir, "sockns", fmt.Sprint(m.host.Instance()), "map_claims"), nil)
	if err != nil {
		return err
	}
	defer claims.Close()
	var keys [][]byte
	var key, value []byte
	for all := claims.Iterate(); all.Next(&key, &value); {
		keys = append(keys, slices.Clone(key))
	}
	for _, k := range keys {
		if err := claims.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// load has a device namespace get a table without the syscall tier.
func (m *Machine) load(device string, want *nft.Table) error {
	conn := m.conns[device]
	if conn == nil {
		f, err := os.Open(m.netns(device))
		if err != nil {
			return err
		}
		defer f.Close()
		if conn, err = nft.Open(int(f.Fd())); err != nil {
			return err
		}
		m.conns[device] = conn
	}
	have, err := conn.Table(compiler.TableName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		have = nil
	}
	return conn.Apply(nft.Diff(have, want))
}

// Try makes flows, all at the same time, and returns what each gets. What is
// expected to get no answer is not waited for long.
func (m *Machine) Try(flows []Flow, silent func(i int) bool) ([]string, error) {
	orders := make(map[string]order)
	places := make(map[string][]int)
	for i, f := range flows {
		o := orders[f.Cgroup]
		o.Try = append(o.Try, try{f, silent(i)})
		orders[f.Cgroup] = o
		places[f.Cgroup] = append(places[f.Cgroup], i)
	}
	answers, err := m.ask(orders)
	if err != nil {
		return nil, err
	}
	got := make([]string, len(flows))
	for c, a := range answers {
		for i, said := range a.Outcomes {
			got[places[c][i]] = said
		}
	}
	return got, nil
}

// Close removes all that the machine made.
func (m *Machine) Close() error {
	var errs []error
	for _, w := range m.workers {
		if w != nil && w.cmd.Process != nil {
			errs = append(errs, w.in.Close(), w.cmd.Wait())
		}
	}
	for _, c := range m.conns {
		errs = append(errs, c.Close())
	}
	if m.host != nil {
		plan, err := m.host.Plan(nil)
		if err == nil && m.Calls {
			err = m.host.Apply(plan)
		}
		errs = append(errs, err)
		m.host.Close()
	}
	for _, d := range m.World.Devices {
		if _, err := os.Stat(m.netns(d.Name)); err == nil {
			errs = append(errs, run("", "ip", "netns", "del", m.tag+"-"+d.Name))
		}
	}
	return errors.Join(append(errs, m.removeCgroups())...)
}

func (m *Machine) removeCgroups() error {
	var dirs []string
	_ = filepath.WalkDir(m.dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		err := os.Remove(dirs[i])
		for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); err = os.Remove(dirs[i]) {
			time.Sleep(5 * time.Millisecond) // processes are leaving
		}
		if err != nil {
			return err
		}
	}
	return nil
}
