// Package modeltest draws random policies for property tests.
package modeltest

import (
	"fmt"
	"net/netip"
	"strings"

	"pgregory.net/rapid"
)

// Options say what a drawn policy may name.
type Options struct {
	// Cgroups are paths that may be members. Each is claimed once at most.
	Cgroups []string
	// Pattern is the each of a template, if there is one.
	Pattern string
	// Devices are the paths of network namespaces besides the host's.
	Devices []string
}

// YAML draws the text of a policy without errors.
func YAML(o Options) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		g := &generator{T: t, names: []string{"corp", "lab"}}
		return g.policy(o)
	})
}

type generator struct {
	*rapid.T
	names []string // of groups and namespaces
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
	fmt.Fprintf(&b, "groups:\n  corp: %s\n  lab: %s\n", g.addresses(3), g.addresses(2))
	count := rapid.IntRange(1, max(1, len(o.Cgroups))).Draw(g.T, "namespaces")
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
		fmt.Fprintf(&b, "    members: [%s]\n", strings.Join(members, ", "))
		if device := rapid.SampledFrom(devices).Draw(g.T, "device"); device != "host" {
			fmt.Fprintf(&b, "    deviceNamespace: %s\n", device)
		}
		g.namespace(&b)
	}
	if o.Pattern != "" && g.chance(2) {
		fmt.Fprintf(&b, "  user:\n    each: %s\n", o.Pattern)
		g.namespace(&b)
	} else if o.Pattern != "" {
		// Rules may name it.
		b.WriteString("  user:\n    members: [{unit: user-absent.service}]\n")
	}
	return b.String()
}

func (g *generator) namespace(b *strings.Builder) {
	if g.chance(2) {
		fmt.Fprintf(b, "    addresses: %s\n", g.addresses(3))
	}
	if g.chance(6) {
		b.WriteString("    mode: audit\n")
	}
	g.hook(b, "bind", "", []string{"EADDRINUSE", "EADDRNOTAVAIL", "EACCES", "EPERM"})
	g.hook(b, "connect", "to", []string{"ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "EPERM", "ETIMEDOUT"})
	g.hook(b, "accept", "from", []string{"ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "ETIMEDOUT"})
	if g.chance(3) {
		hook := rapid.SampledFrom([]string{"bind", "connect", "accept"}).Draw(g.T, "hook")
		fmt.Fprintf(b, "    default: {%s: %s}\n", hook, rapid.SampledFrom([]string{"allow", "deny", "{action: deny, error: EACCES}"}).Draw(g.T, "default"))
	}
}

func (g *generator) hook(b *strings.Builder, hook, peers string, errnos []string) {
	n := rapid.IntRange(0, 4).Draw(g.T, hook)
	if n == 0 {
		return
	}
	fmt.Fprintf(b, "    %s:\n", hook)
	for range n {
		var keys []string
		if g.chance(3) {
			keys = append(keys, "action: deny")
			if g.chance(2) {
				keys = append(keys, "error: "+rapid.SampledFrom(errnos).Draw(g.T, "error"))
			}
		}
		ports := g.chance(2)
		if ports {
			keys = append(keys, "ports: "+g.list(3, g.port))
		}
		if g.chance(2) {
			protocols := []string{"tcp", "udp", "sctp", "udplite", "icmp"}
			if ports {
				protocols = protocols[:4]
			}
			some := rapid.SliceOfNDistinct(rapid.SampledFrom(protocols), 1, 3, rapid.ID).Draw(g.T, "protocols")
			keys = append(keys, "protocol: ["+strings.Join(some, ", ")+"]")
		}
		if g.chance(5) {
			keys = append(keys, "local: "+g.list(2, g.local))
		}
		if peers != "" && !g.chance(4) {
			keys = append(keys, peers+": "+g.list(3, g.peer))
		}
		if g.chance(8) {
			keys = append(keys, "log: true")
		}
		fmt.Fprintf(b, "      - {%s}\n", strings.Join(keys, ", "))
	}
}

// chance is true in about one of n cases.
func (g *generator) chance(n int) bool { return rapid.IntRange(1, n).Draw(g.T, "chance") == n }

func (g *generator) list(most int, item func() string) string {
	items := make([]string, rapid.IntRange(1, most).Draw(g.T, "items"))
	for i := range items {
		items[i] = item()
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func (g *generator) port() string {
	first := rapid.IntRange(1, 65535).Draw(g.T, "port")
	if g.chance(2) {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, min(65535, first+rapid.IntRange(0, 2000).Draw(g.T, "width")))
}

func (g *generator) peer() string {
	switch rapid.IntRange(0, 5).Draw(g.T, "peer") {
	case 0:
		return "any"
	case 1:
		return "self"
	case 2:
		return "unmanaged"
	case 3:
		return rapid.SampledFrom(g.names).Draw(g.T, "name")
	default:
		return g.address()
	}
}

func (g *generator) local() string {
	if g.chance(4) {
		return rapid.SampledFrom(append([]string{"any", "self"}, g.names...)).Draw(g.T, "name")
	}
	return g.address()
}

func (g *generator) addresses(most int) string { return g.list(most, g.address) }

// address draws from few networks, so that what is drawn overlaps.
func (g *generator) address() string {
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
