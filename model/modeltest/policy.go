// Package modeltest draws random policies for property tests.
package modeltest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
)

// Options say what a drawn policy may name.
type Options struct {
	// Cgroups are paths that may be members. Each is claimed once at most.
	Cgroups []string
	// Pattern is the each of a template, if there is one.
	Pattern string
	// Devices are the paths of network namespaces besides the host's.
	Devices []string
	// Ports, if there are any, are where the ranges of ports begin and end, and
	// Addresses where prefixes and ranges of addresses do, so that flows
	// between these and their neighbours meet the edges of rules.
	Ports     []uint16
	Addresses []netip.Addr
	// Long has some lists be long: besides what is drawn they have addresses and
	// ports that are nobody's.
	Long bool
	// Local, if it has any, are the addresses of device namespaces, by name.
	Local map[string][]netip.Addr
}

// YAML draws the text of a policy without errors.
func YAML(o Options) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		g := &generator{T: t, Options: o, names: []string{"corp", "lab"}}
		return g.policy(o)
	})
}

type generator struct {
	*rapid.T
	Options
	names []string // of groups and namespaces
	said  []string // by namespaces, until now
}

func (g *generator) policy(o Options) string {
	var b strings.Builder
	b.WriteString("apiVersion: sockns/v1\n")
	if g.chance(5) {
		fmt.Fprintf(&b, "udpTimeout: %ds\n", rapid.IntRange(1, 90).Draw(g.T, "timeout"))
	}
	devices := []string{"host"}
	if len(o.Devices) > 0 {
		b.WriteString("deviceNamespaces:\n")
		for i, path := range o.Devices {
			name := fmt.Sprintf("dev%d", i)
			fmt.Fprintf(&b, "  %s: {path: %s}\n", name, path)
			devices = append(devices, name)
		}
	}
	fmt.Fprintf(&b, "groups:\n  corp: %s\n  lab: %s\n", g.long(g.addresses(3), nobodysAddresses), g.long(g.addresses(2), nobodysAddresses))
	count := 1 + g.pick(max(1, len(o.Cgroups)))
	for i := range count {
		g.names = append(g.names, fmt.Sprintf("ns%d", i))
	}
	if o.Pattern != "" {
		g.names = append(g.names, "user")
	}
	cgroups := rapid.Permutation(o.Cgroups).Draw(g.T, "cgroups")
	b.WriteString("socketNamespaces:\n")
	for i := range count {
		fmt.Fprintf(&b, "  ns%d:\n", i)
		members := []string{fmt.Sprintf("{unit: absent%d.service}", i)}
		if i < len(cgroups) {
			members = append(members, fmt.Sprintf("{cgroup: %s}", cgroups[i]))
		}
		if last := len(cgroups) - 1 - i; last >= count && g.chance(3) {
			members = append(members, fmt.Sprintf("{cgroup: %s}", cgroups[last]))
		}
		fmt.Fprintf(&b, "    members: [%s]\n", strings.Join(members, ", "))
		g.likeAnother(&b, g.device(&b, devices))
	}
	if o.Pattern != "" && g.chance(2) {
		fmt.Fprintf(&b, "  user:\n    each: %s\n", o.Pattern)
		g.likeAnother(&b, g.device(&b, devices))
	} else if o.Pattern != "" {
		// Rules may name it.
		b.WriteString("  user:\n    members: [{unit: user-absent.service}]\n")
	}
	return b.String()
}

func (g *generator) device(b *strings.Builder, devices []string) string {
	device := devices[g.pick(len(devices))]
	if device != "host" {
		fmt.Fprintf(b, "    deviceNamespace: %s\n", device)
	}
	return device
}

// likeAnother draws what a namespace says, and now and then the same as another.
func (g *generator) likeAnother(b *strings.Builder, device string) {
	if len(g.said) == 0 || !g.chance(5) {
		var text strings.Builder
		g.namespace(&text, device)
		g.said = append(g.said, text.String())
		b.WriteString(text.String())
		return
	}
	b.WriteString(g.said[g.pick(len(g.said))])
}

func (g *generator) namespace(b *strings.Builder, device string) {
	switch local := g.Local[device]; {
	case len(local) > 0 && g.chance(3):
		fmt.Fprintf(b, "    addresses: %s\n", g.list(4, func() string { return "'" + local[g.pick(len(local))].String() + "'" }))
	case g.chance(2):
		fmt.Fprintf(b, "    addresses: %s\n", g.addresses(3))
	}
	if g.chance(6) {
		b.WriteString("    mode: audit\n")
	}
	peers := map[model.Hook]string{model.Connect: "to", model.Accept: "from"}
	var defaults []string
	for _, h := range model.Hooks {
		g.hook(b, h.String(), peers[h], model.HookErrors[h])
		if g.chance(4) {
			defaults = append(defaults, h.String()+": "+g.outcome(model.HookErrors[h]))
		}
	}
	if len(defaults) > 0 {
		fmt.Fprintf(b, "    default: {%s}\n", strings.Join(defaults, ", "))
	}
}

func (g *generator) outcome(errnos []model.Errno) string {
	switch g.pick(4) {
	case 0:
		return "deny"
	case 1:
		return fmt.Sprintf("{action: deny, error: %s}", errnos[g.pick(len(errnos))])
	}
	return "allow"
}

func (g *generator) hook(b *strings.Builder, hook, peers string, errnos []model.Errno) {
	n := g.pick(5)
	if n == 0 {
		return
	}
	fmt.Fprintf(b, "    %s:\n", hook)
	for range n {
		var keys []string
		if g.chance(3) {
			keys = append(keys, "action: deny")
			if g.chance(2) {
				keys = append(keys, "error: "+string(errnos[g.pick(len(errnos))]))
			}
			if g.chance(6) {
				keys = append(keys, "audit: true")
			}
		}
		ports := g.chance(2)
		if ports {
			keys = append(keys, "ports: "+g.long(g.list(3, g.port), nobodysPorts))
		}
		if g.chance(2) {
			keys = append(keys, "protocol: ["+strings.Join(g.protocols(ports), ", ")+"]")
		}
		if g.chance(5) {
			keys = append(keys, "local: "+g.long(g.list(2, g.local), nobodysAddresses))
		}
		if peers != "" && !g.chance(4) {
			keys = append(keys, peers+": "+g.long(g.list(3, g.peer), nobodysAddresses))
		}
		if g.chance(8) {
			keys = append(keys, "log: true")
		}
		fmt.Fprintf(b, "      - {%s}\n", strings.Join(keys, ", "))
	}
}

// protocols draws some, TCP and UDP more often than the others.
func (g *generator) protocols(ports bool) []string {
	all := []string{"tcp", "udp", "tcp", "udp", "sctp", "udplite", "icmp"}
	if ports {
		all = all[:6]
	}
	var some []string
	for range 1 + g.pick(2) {
		if p := all[g.pick(len(all))]; !slices.Contains(some, p) {
			some = append(some, p)
		}
	}
	return some
}

// chance is true in about one of n cases.
func (g *generator) chance(n int) bool { return g.pick(n) == n-1 }

// pick draws a number below n, each about as often: the integers of rapid are
// mostly small.
func (g *generator) pick(n int) int {
	v := 0
	for i := 1; i < 8*n; i *= 2 {
		v *= 2
		if rapid.Bool().Draw(g.T, "bit") {
			v++
		}
	}
	return v % n
}

func (g *generator) list(most int, item func() string) string {
	items := make([]string, 1+g.pick(most))
	for i := range items {
		items[i] = item()
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// long makes a list longer by some of what is nobody's, if there are long lists.
func (g *generator) long(list string, more []string) string {
	if !g.Long || !g.chance(4) {
		return list
	}
	items := []string{strings.Trim(list, "[]")}
	for _, m := range more {
		if g.chance(2) {
			items = append(items, m)
		}
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// Single values and ranges of addresses and ports that no flow of a test meets.
var (
	nobodysAddresses = []string{
		nobodys(6, func(i int) string { return fmt.Sprintf("198.18.0.%d", 2*i) }),
		nobodys(14, func(i int) string { return fmt.Sprintf("198.19.%d.0/24", 2*i) }),
		nobodys(6, func(i int) string { return fmt.Sprintf("'2001:db8:f::%d'", 2*i) }),
		nobodys(14, func(i int) string { return fmt.Sprintf("'2001:db8:%d::/48'", 1000+2*i) }),
	}
	nobodysPorts = []string{
		nobodys(7, func(i int) string { return fmt.Sprint(20000 + 2*i) }),
		nobodys(14, func(i int) string { return fmt.Sprintf("%d-%d", 21000+3*i, 21001+3*i) }),
	}
)

func nobodys(n int, item func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = item(i)
	}
	return strings.Join(items, ", ")
}

func (g *generator) port() string {
	if len(g.Ports) > 0 {
		first, last := g.pick(len(g.Ports)), g.pick(len(g.Ports))
		if g.chance(2) || g.Ports[first] == g.Ports[last] {
			return fmt.Sprint(g.Ports[first])
		}
		return model.PortRange{First: min(g.Ports[first], g.Ports[last]), Last: max(g.Ports[first], g.Ports[last])}.String()
	}
	first := rapid.IntRange(1, 65535).Draw(g.T, "port")
	if g.chance(2) {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, min(65535, first+rapid.IntRange(0, 2000).Draw(g.T, "width")))
}

func (g *generator) peer() string {
	switch g.pick(6) {
	case 0:
		return "any"
	case 1:
		return "self"
	case 2:
		return "unmanaged"
	case 3:
		return g.names[g.pick(len(g.names))]
	default:
		return g.address()
	}
}

func (g *generator) local() string {
	if g.chance(4) {
		names := append([]string{"any", "self"}, g.names...)
		return names[g.pick(len(names))]
	}
	return g.address()
}

func (g *generator) addresses(most int) string { return g.list(most, g.address) }

// address draws from few networks, so that what is drawn overlaps.
func (g *generator) address() string {
	if len(g.Addresses) > 0 {
		return "'" + g.edge().String() + "'"
	}
	a, b := rapid.IntRange(0, 3).Draw(g.T, "a"), rapid.IntRange(0, 255).Draw(g.T, "b")
	switch rapid.IntRange(0, 5).Draw(g.T, "kind") {
	case 0:
		return fmt.Sprintf("10.0.%d.%d", a, b)
	case 1:
		ip := netip.AddrFrom4([4]byte{10, 0, byte(a), byte(b)})
		return netip.PrefixFrom(ip, rapid.IntRange(8, 32).Draw(g.T, "bits")).Masked().String()
	case 2:
		return fmt.Sprintf("10.0.%d.%d-10.0.3.255", a, b)
	case 3:
		return fmt.Sprintf("'2001:db8:%x::%x'", a, b)
	case 4:
		ip := netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::", a))
		return "'" + netip.PrefixFrom(ip, rapid.IntRange(33, 64).Draw(g.T, "bits")).Masked().String() + "'"
	default:
		return fmt.Sprintf("'2001:db8::%x-2001:db8:%x::ffff'", b, a)
	}
}

// edge draws an address, a prefix or a range that begins or ends at one of the
// given addresses.
func (g *generator) edge() model.AddressRange {
	a := g.Addresses[g.pick(len(g.Addresses))]
	switch g.pick(4) {
	case 0, 1:
		return model.AddressRange{First: a, Last: a}
	case 2:
		return model.RangeOf(netip.PrefixFrom(a, a.BitLen()-1-g.pick(4)))
	}
	b := g.Addresses[g.pick(len(g.Addresses))]
	switch {
	case b.BitLen() != a.BitLen():
		return model.RangeOf(netip.PrefixFrom(a, 0))
	case b.Less(a):
		a, b = b, a
	}
	return model.AddressRange{First: a, Last: b}
}
