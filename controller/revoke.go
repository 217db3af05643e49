package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/sockdiag"
)

// Revoke closes the open connections that a policy refuses (SOCK_DESTROY) and
// returns what was closed, in words. A connection counts as begun by the end
// that does not have a listener's port.
func (h *Host) Revoke(p *model.Policy, f compiler.Facts) ([]string, error) {
	paths := h.cgroupPaths()
	devices, err := h.openAll(p)
	if err != nil {
		return nil, err
	}
	var closed []string
	var errs []error
	for _, d := range p.DeviceNamespaces {
		dev, ok := devices[d.Name]
		if !ok {
			continue
		}
		words, err := revokeIn(p, dev, ownersOf(p, d.Name, f), paths)
		closed = append(closed, words...)
		errs = append(errs, err)
	}
	return closed, errors.Join(errs...)
}

// ownersOf returns the members of one device namespace.
func ownersOf(p *model.Policy, device string, f compiler.Facts) compiler.Members {
	var members []compiler.Member
	names := p.Names()
	for _, m := range f.Members {
		if n := names.Namespace(m.Namespace); n != nil && n.Device == device {
			members = append(members, m)
		}
	}
	return compiler.NewMembers(members)
}

func revokeIn(p *model.Policy, dev *hostDevice, members compiler.Members, paths map[uint64]string) ([]string, error) {
	conn, err := sockdiag.Dial(dev.ns.NetNS())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	sockets, err := conn.List()
	if err != nil {
		return nil, err
	}
	listening := make(map[uint16]bool)
	ends := make(map[[2]netip.AddrPort]sockdiag.Socket) // by local and remote address
	for _, s := range sockets {
		if s.Protocol != sockdiag.TCP {
			continue
		}
		if s.State == sockdiag.Listen {
			listening[s.Local.Port()] = true
		}
		ends[[2]netip.AddrPort{s.Local, s.Remote}] = s
	}
	var closed []string
	var errs []error
	for _, s := range sockets {
		if s.Protocol != sockdiag.TCP || !connected(s) {
			continue
		}
		flow := flowOf(dev.name, s, ends, listening, members, paths)
		d := model.Decide(p, flow)
		if d.Allowed() {
			continue
		}
		err := conn.Destroy(s)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went with its other end
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", s, err))
			continue
		}
		closed = append(closed, fmt.Sprintf("%s of %s in device namespace %s", s, nameOf(members.Owner(paths[s.CgroupID])), dev.name))
	}
	return closed, errors.Join(errs...)
}

// connected reports whether a TCP socket has a connection that could carry data.
func connected(s sockdiag.Socket) bool {
	switch s.State {
	case sockdiag.Established, sockdiag.SynSent, sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.CloseWait:
		return true
	}
	return false
}

// flowOf reconstructs the flow that began a connection.
func flowOf(device string, s sockdiag.Socket, ends map[[2]netip.AddrPort]sockdiag.Socket, listening map[uint16]bool,
	members compiler.Members, paths map[uint64]string) model.Flow {
	us := model.End{Device: device, Namespace: members.Owner(paths[s.CgroupID]), Address: s.Local}
	them := model.End{Address: s.Remote}
	if peer, here := ends[[2]netip.AddrPort{s.Remote, s.Local}]; here {
		them.Device, them.Namespace = device, members.Owner(paths[peer.CgroupID])
	}
	f := model.Flow{Protocol: model.TCP, From: us, To: them}
	if listening[s.Local.Port()] && !(them.Device != "" && listening[s.Remote.Port()]) {
		f.From, f.To = them, us
	}
	// The connecting end's port was the kernel's choice as far as can be told.
	f.From.Address = netip.AddrPortFrom(f.From.Address.Addr(), 0)
	return f
}

func nameOf(namespace string) string {
	if namespace == "" {
		return "an unmanaged process"
	}
	return namespace
}
