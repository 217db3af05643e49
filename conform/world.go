// Package conform holds three things against one another: what a policy means
// ([model.Decide]), what the compiled policy does to packets and calls
// (simulated: [Applications]), and what real sockets get from the kernel. It
// draws a world, a random policy in it, and flows at the edges of the policy's
// rules.
package conform

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// World is where flows are tried: network namespaces, cgroups, and sockets
// that listen. All that policies draw from is in it, so that each edge of a
// rule, and its neighbour, is an address or a port of some listener.
type World struct {
	Devices   []Device
	Listeners []Listener
	// Fresh says that sockets begin to listen under each policy anew, so that
	// it refuses some and steers others. Until then there are none.
	Fresh bool
	// Binds are what a fresh world's sockets try to listen on, in their order.
	Binds []Listener
	at    map[listenerKey]int
}

// Device is a network namespace. The last one of a world is named by no
// policy: it is another machine.
type Device struct {
	Name      string // in policies; and in scenarios
	Managed   bool   // a policy can name it
	Addresses []netip.Addr
}

// Listener is a listening socket.
type Listener struct {
	Device   int
	Cgroup   string // of [Cgroups]
	Protocol model.Protocol
	Address  netip.AddrPort // its Addr may be the wildcard of a family
	// Asked is what the socket asked for, if it is steered: Address is then
	// where the kernel has it. Owner is the socket namespace that it is of.
	Asked netip.AddrPort
	Owner string
}

// target is the address that reaches a listener.
func (l Listener) target() netip.AddrPort {
	if l.Asked.IsValid() {
		return l.Asked
	}
	return l.Address
}

type listenerKey struct {
	device   int
	protocol model.Protocol
	address  netip.AddrPort
}

// Cgroups are those of every world, by their paths below the world's own
// cgroup; "" stands for a process outside. The last ones are never members.
var Cgroups = []string{"", "a", "a/b", "a/b/c", "d", "d/e", "g", "users/user-1", "users/user-2", "users/other", "free"}

// claimable are the cgroups that a policy may claim by path.
var claimable = []string{"a", "a/b", "a/b/c", "d", "d/e", "g", "absent"}

const pattern = "users/user-*"

// EphemeralFirst and EphemeralLast bound the ports that the kernel of a world
// picks. No policy's range begins or ends there, and nobody binds one.
const (
	EphemeralFirst = 40000
	EphemeralLast  = 60999
)

var edgePorts = []uint16{1, 100, 101, 102, 103, 104, 105, 106, 107, 65535}

// ports are the edges and their neighbours.
var ports = []uint16{1, 2, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 65534, 65535}

const addressesEach = 4 // of a family in a device

var loopbacks = []netip.Addr{
	netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3"), netip.IPv6Loopback(),
}

// NewWorld draws a world.
func NewWorld(r *rand.Rand) *World {
	w := &World{Devices: devices(), at: make(map[listenerKey]int)}
	for d := range w.Devices {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
			for _, port := range ports {
				w.listen(r, d, protocol, port)
			}
		}
	}
	return w
}

// NewFreshWorld draws a world whose sockets listen under each policy anew. Of
// several at the same address and port a policy may let more than one listen.
func NewFreshWorld(r *rand.Rand) *World {
	w := &World{Devices: devices(), Fresh: true}
	for d := range w.Devices {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
			for _, port := range ports {
				for range 5 + r.IntN(9) {
					addrs := w.localAddresses(d)
					if protocol == model.TCP && r.IntN(2) == 0 {
						addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv4Unspecified(), netip.IPv6Unspecified(), loopbacks[0], loopbacks[0]}
					}
					w.Binds = append(w.Binds, Listener{
						Device: d, Cgroup: Cgroups[r.IntN(len(Cgroups))], Protocol: protocol,
						Address: netip.AddrPortFrom(addrs[r.IntN(len(addrs))], port),
					})
				}
			}
		}
	}
	// A worker binds all of its own at once.
	r.Shuffle(len(w.Binds), func(i, j int) { w.Binds[i], w.Binds[j] = w.Binds[j], w.Binds[i] })
	order := r.Perm(len(Cgroups))
	slices.SortStableFunc(w.Binds, func(a, b Listener) int {
		return order[slices.Index(Cgroups, a.Cgroup)] - order[slices.Index(Cgroups, b.Cgroup)]
	})
	return w
}

// Empty returns a fresh world in which nothing listens yet.
func (w *World) Empty() *World {
	return &World{Devices: w.Devices, Fresh: true, Binds: w.Binds, at: make(map[listenerKey]int)}
}

// devices returns those of every world.
func devices() []Device {
	var list []Device
	first4, first6 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")
	for _, name := range []string{model.HostDevice, "dev0", "far"} {
		d := Device{Name: name, Managed: name != "far"}
		for range addressesEach {
			d.Addresses = append(d.Addresses, first4, first6)
			first4, first6 = first4.Next(), first6.Next()
		}
		list = append(list, d)
	}
	return list
}

func (w *World) add(l Listener) {
	w.at[listenerKey{l.Device, l.Protocol, l.Address}] = len(w.Listeners)
	w.Listeners = append(w.Listeners, l)
}

// listen draws who listens on a port, at each address.
func (w *World) listen(r *rand.Rand, device int, protocol model.Protocol, port uint16) {
	wild4, wild6 := false, false
	add := func(addr netip.Addr) {
		w.add(Listener{Device: device, Cgroup: Cgroups[r.IntN(len(Cgroups))], Protocol: protocol, Address: netip.AddrPortFrom(addr, port)})
	}
	// The answers of a UDP wildcard may come from another address than was asked.
	if protocol == model.TCP {
		if wild4 = r.IntN(6) == 0; wild4 {
			add(netip.IPv4Unspecified())
		}
		if wild6 = r.IntN(6) == 0; wild6 {
			add(netip.IPv6Unspecified())
		}
	}
	for _, addr := range w.localAddresses(device) {
		wild := wild6
		if addr.Is4() {
			wild = wild4
		}
		if !wild && r.IntN(4) != 0 {
			add(addr)
		}
	}
}

// localAddresses returns all, those of loopback too.
func (w *World) localAddresses(device int) []netip.Addr {
	return append(w.Devices[device].Addresses[:len(w.Devices[device].Addresses):len(w.Devices[device].Addresses)], loopbacks...)
}

// first returns the source of what a device sends to others.
func first(d Device, four bool) netip.Addr {
	i := slices.IndexFunc(d.Addresses, func(a netip.Addr) bool { return a.Is4() == four })
	return d.Addresses[i]
}

// Receiver returns the listener that gets what is sent to an address, nil if
// none does.
func (w *World) Receiver(device int, protocol model.Protocol, to netip.AddrPort) *Listener {
	wildcard := netip.IPv6Unspecified()
	if to.Addr().Is4() {
		wildcard = netip.IPv4Unspecified()
	}
	for _, addr := range []netip.Addr{to.Addr(), wildcard} {
		if i, ok := w.at[listenerKey{device, protocol, netip.AddrPortFrom(addr, to.Port())}]; ok {
			return &w.Listeners[i]
		}
	}
	return nil
}

// source is the address that the kernel picks for what a flow sends.
func (w *World) source(f Flow) netip.Addr {
	to := f.To.Addr()
	switch {
	case to.IsLoopback() && to.Is4():
		return loopbacks[0] // the source of the route to 127.0.0.0/8
	case f.Near():
		return to
	}
	return first(w.Devices[f.Device], to.Is4())
}

// bound is what the kernel says to a bind that nothing refuses.
func (w *World) bound(f Flow, to netip.AddrPort) string {
	if !to.Addr().IsUnspecified() && !to.Addr().IsLoopback() && !slices.Contains(w.Devices[f.Device].Addresses, to.Addr()) {
		return string(model.EADDRNOTAVAIL)
	}
	for _, l := range w.Listeners {
		overlaps := l.Address.Addr() == to.Addr() ||
			l.Address.Addr().Is4() == to.Addr().Is4() && (l.Address.Addr().IsUnspecified() || to.Addr().IsUnspecified())
		if l.Device == f.Device && l.Protocol == f.Protocol && l.Address.Port() == to.Port() && overlaps {
			return string(model.EADDRINUSE)
		}
	}
	return Ok
}

// Options are what policies of the world are drawn from. Their text has $CG
// for the world's cgroup and $NS_name for the path of a network namespace.
func (w *World) Options() modeltest.Options {
	o := modeltest.Options{Pattern: "$CG/" + pattern, Ports: edgePorts, Addresses: loopbacks, Long: true, Local: make(map[string][]netip.Addr)}
	for _, c := range claimable {
		o.Cgroups = append(o.Cgroups, "$CG/"+c)
	}
	for i, d := range w.Devices {
		o.Addresses = append(o.Addresses[:len(o.Addresses):len(o.Addresses)], d.Addresses...)
		if d.Managed {
			o.Local[d.Name] = d.Addresses
		}
		if i > 0 && d.Managed {
			o.Devices = append(o.Devices, "$NS_"+d.Name)
		}
	}
	return o
}

// Place replaces the placeholders of a policy's text.
func (w *World) Place(text, cgroup string, netns func(device string) string) string {
	text = strings.ReplaceAll(text, "$CG", cgroup)
	for _, d := range w.Devices {
		text = strings.ReplaceAll(text, "$NS_"+d.Name, netns(d.Name))
	}
	return text
}

// Parse reads a policy of the world, as the simulation places it.
func (w *World) Parse(text string) (*model.Policy, error) {
	text = w.Place(text, simulatedCgroup, func(device string) string { return "/run/netns/" + device })
	p, diagnostics := model.Parse([]model.File{{Name: "policy.yaml", Data: []byte(text)}})
	for _, d := range diagnostics {
		if d.Severity == model.Error {
			return nil, fmt.Errorf("%v\n%s", d, text)
		}
	}
	return p, nil
}

const simulatedCgroup = "/cg"

// Owner returns the socket namespace of a socket that was created in a cgroup
// and a device: of the namespaces of its device, the one with the deepest
// member. It is written anew here, and not with the compiler's facts.
func (w *World) Owner(p *model.Policy, device int, cgroup string) string {
	if cgroup == "" || !w.Devices[device].Managed {
		return ""
	}
	for at := simulatedCgroup + "/" + cgroup; at != "/"; at = path.Dir(at) {
		for i := range p.SocketNamespaces {
			n := &p.SocketNamespaces[i]
			if n.Device != w.Devices[device].Name {
				continue
			}
			for _, m := range n.Members {
				if m.Cgroup == at {
					return n.Name
				}
			}
			if name, ok := model.InstanceName(n.Name, n.Each, at); ok && n.Each != "" {
				return name
			}
		}
	}
	return ""
}

// cgroupIDs returns the ids of a cgroup and of those above it as the
// simulation numbers them, the first below the root.
func cgroupIDs(cgroup string) []uint64 {
	if cgroup == "" {
		return nil
	}
	ids := []uint64{1000}
	parts := strings.Split(cgroup, "/")
	for i := range parts {
		ids = append(ids, cgroupID(strings.Join(parts[:i+1], "/")))
	}
	return ids
}

var parents = []string{"users"}

func cgroupID(cgroup string) uint64 {
	for i, c := range append(Cgroups[1:len(Cgroups):len(Cgroups)], parents...) {
		if c == cgroup {
			return uint64(1001 + i)
		}
	}
	panic("no cgroup " + cgroup)
}

// Facts are what the compiler is told of the world by the simulation.
func (w *World) Facts(p *model.Policy, calls bool) compiler.Facts {
	f := compiler.Facts{Devices: make(map[string]compiler.DeviceFacts), Instance: 1, Syscalls: calls}
	for i, d := range w.Devices {
		if !d.Managed {
			continue
		}
		f.Devices[d.Name] = compiler.DeviceFacts{
			Addresses: d.Addresses, Locals: d.Addresses, Cookie: cookieOf(i), EphemeralFirst: EphemeralFirst, EphemeralLast: EphemeralLast,
		}
	}
	member := func(namespace, cgroup string) compiler.Member {
		return compiler.Member{Namespace: namespace, Path: simulatedCgroup + "/" + cgroup, ID: cgroupID(cgroup), Level: len(cgroupIDs(cgroup))}
	}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, m := range n.Members {
			found := false
			for _, c := range Cgroups[1:] {
				if m.Cgroup == simulatedCgroup+"/"+c {
					f.Members, found = append(f.Members, member(n.Name, c)), true
				}
			}
			if !found {
				f.Missing = append(f.Missing, compiler.Missing{Namespace: n.Name, Member: m})
			}
		}
		if n.Each == "" {
			continue
		}
		door := compiler.Door{Device: n.Device, Templates: []string{n.Name}, Path: simulatedCgroup + "/users", ID: cgroupID("users"), Level: 2}
		for _, c := range Cgroups[1:] {
			if name, ok := model.InstanceName(n.Name, n.Each, simulatedCgroup+"/"+c); ok {
				f.Members = append(f.Members, member(name, c))
			} else if path.Dir(c) == "users" {
				door.Exempt = append(door.Exempt, member("", c))
			}
		}
		f.Doors = append(f.Doors, door)
	}
	return f
}

func cookieOf(device int) uint64 { return uint64(device + 1) }
