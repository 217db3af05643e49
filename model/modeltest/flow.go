package modeltest

import (
	"net/netip"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
)

// Flow draws a flow that can be in the world of a policy, aimed at the edges
// of its rules: the first and last port and address of a range, and their
// neighbours.
func Flow(p *model.Policy) *rapid.Generator[model.Flow] {
	ports, addrs := edges(p)
	return rapid.Custom(func(t *rapid.T) model.Flow {
		f := model.Flow{Protocol: rapid.SampledFrom(model.Protocols[:]).Draw(t, "protocol")}
		six := rapid.Bool().Draw(t, "six")
		f.From, f.To = end(t, p, addrs, six), end(t, p, addrs, six)
		port := func() uint16 {
			if !f.Protocol.HasPorts() {
				return 0
			}
			return rapid.SampledFrom(ports).Draw(t, "port")
		}
		from := f.From.Address.Addr()
		if f.From.Device != "" && rapid.IntRange(0, 2).Draw(t, "picked") == 0 {
			if rapid.Bool().Draw(t, "known") {
				f.From.Picked = from
			}
			from = netip.Addr{} // the kernel picks
		}
		f.From.Address = netip.AddrPortFrom(from, port())
		if rapid.Bool().Draw(t, "pickedPort") {
			f.From.Address = netip.AddrPortFrom(from, 0)
		}
		f.To.Address = netip.AddrPortFrom(f.To.Address.Addr(), max(port(), 1))
		if !f.Protocol.HasPorts() {
			f.To.Address = netip.AddrPortFrom(f.To.Address.Addr(), 0)
		}
		return f
	})
}

func end(t *rapid.T, p *model.Policy, addrs [2][]netip.Addr, six bool) model.End {
	family := addrs[0]
	if six {
		family = addrs[1]
	}
	e := model.End{Address: netip.AddrPortFrom(rapid.SampledFrom(family).Draw(t, "address"), 0)}
	switch k := rapid.IntRange(0, 5).Draw(t, "end"); {
	case k == 0: // elsewhere
	case k == 1 || len(p.SocketNamespaces) == 0:
		e.Device = rapid.SampledFrom(p.DeviceNamespaces).Draw(t, "device").Name
	default:
		n := &p.SocketNamespaces[rapid.IntRange(0, len(p.SocketNamespaces)-1).Draw(t, "namespace")]
		e.Namespace, e.Device = n.Name, n.Device
		if n.Each != "" {
			e.Namespace += "/" + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "instance")
		}
	}
	return e
}

// edges returns the ports and the addresses of both families at and beside the
// edges of what a policy names.
func edges(p *model.Policy) (ports []uint16, addrs [2][]netip.Addr) {
	ports = []uint16{1, 65535}
	address := func(r model.AddressRange) {
		family := 0
		if r.First.Is6() {
			family = 1
		}
		for _, a := range []netip.Addr{r.First.Prev(), r.First, r.Last, r.Last.Next()} {
			if a.IsValid() && !a.IsUnspecified() {
				addrs[family] = append(addrs[family], a)
			}
		}
	}
	for _, s := range []string{"127.0.0.1/32", "127.0.0.0/8", "198.51.100.77/32", "::1/128", "2001:db8:77::77/128"} {
		address(model.RangeOf(netip.MustParsePrefix(s)))
	}
	for _, g := range p.Groups {
		for _, a := range g.Addresses {
			address(a)
		}
	}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, a := range n.Addresses {
			address(a)
		}
		for _, h := range model.Hooks {
			for _, r := range n.Rules(h) {
				for _, pr := range r.Ports {
					ports = append(ports, max(pr.First, 2)-1, pr.First, pr.Last, min(pr.Last, 65534)+1)
				}
				for _, peers := range [][]model.Peer{r.Local, r.Peers} {
					for _, peer := range peers {
						if peer.Kind == model.PeerAddress {
							address(peer.Address)
						}
					}
				}
			}
		}
	}
	return ports, addrs
}
