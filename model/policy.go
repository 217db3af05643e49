// Package model is the policy language of sockns: what an operator can say,
// how it is read from YAML, which mistakes are found, and what it means.
//
// The package is pure: it touches neither the kernel nor the file system.
// [Parse] turns YAML into a [Policy] or a list of [Diagnostic]; [Decide] is
// the reference for what a policy means, and everything else is tested
// against it.
package model

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// APIVersion is the only value that a policy file's apiVersion may have.
const APIVersion = "sockns/v1"

// HostDevice is the device namespace that always exists: the network
// namespace that the program was started in.
const HostDevice = "host"

// DefaultUDPTimeout is how long the answer to an allowed datagram is allowed.
const DefaultUDPTimeout = 30 * time.Second

// Policy is everything that the files of one run say, merged. Slices keep the
// order of the files. A Policy is a plain value; nothing in this module
// modifies one after [Parse] returned it.
type Policy struct {
	DeviceNamespaces []DeviceNamespace // HostDevice is always the first
	Groups           []Group
	SocketNamespaces []SocketNamespace
	UDPTimeout       time.Duration // never zero
	Syscalls         SyscallTier
	Tests            []Expectation
}

// Position is a place in a policy file. Line and Column count from 1.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// String returns file:line:column.
func (p Position) String() string {
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// SyscallTier says what to do where the kernel can't answer bind(2) and
// connect(2) itself (cgroup-BPF).
type SyscallTier string

// The two values of enforcement.syscalls.
const (
	SyscallsAuto     SyscallTier = "auto"     // packets alone where the kernel has no more
	SyscallsRequired SyscallTier = "required" // refuse to apply without
)

// DeviceNamespace is a network namespace (network_namespaces(7)) in the role
// that Biederman gave it: devices, routes, addresses.
type DeviceNamespace struct {
	Name string
	Path string // file that names the netns; empty for HostDevice
	Pos  Position
}

// Group is a named set of addresses.
type Group struct {
	Name      string
	Addresses []AddressRange
	Pos       Position
}

// MaxTemplates is how many templates a device namespace may have: packets carry
// the number of one in 9 bits.
const MaxTemplates = 512

// SocketNamespace is a set of sockets and the rules for them. With Each it is
// a template: one namespace for each cgroup that matches, named by
// [InstanceName].
type SocketNamespace struct {
	Name      string
	Device    string // name of a DeviceNamespace
	Members   []Member
	Each      string // pattern of a cgroup path, or empty
	Addresses []AddressRange
	Mode      Mode
	Bind      []Rule
	Connect   []Rule
	Accept    []Rule
	Default   Defaults
	Pos       Position
	EachPos   Position
}

// Rules returns the ordered rules of one hook.
func (n *SocketNamespace) Rules(h Hook) []Rule {
	switch h {
	case Bind:
		return n.Bind
	case Connect:
		return n.Connect
	default:
		return n.Accept
	}
}

// Member is one cgroup v2 subtree. Exactly one of Cgroup and Unit is set.
type Member struct {
	Cgroup string // absolute path below the cgroup2 mount, clean, without a trailing slash
	Unit   string // systemd unit name with its suffix: nginx.service
	Pos    Position
}

// String returns the member in the operator's words.
func (m Member) String() string {
	if m.Unit != "" {
		return "unit " + m.Unit
	}
	return "cgroup " + m.Cgroup
}

// Mode says whether refusals are real.
type Mode string

// The two modes.
const (
	Enforce Mode = "enforce"
	Audit   Mode = "audit" // count and log, refuse nothing
)

// Hook is the moment that a rule decides about.
type Hook uint8

// The three hooks.
const (
	Bind Hook = iota
	Connect
	Accept
)

// Hooks lists the hooks in the order of the language.
var Hooks = [...]Hook{Bind, Connect, Accept}

// String returns the hook's key in a policy file.
func (h Hook) String() string { return [...]string{"bind", "connect", "accept"}[h] }

// Action is what a rule or a default does.
type Action string

// The two actions.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
)

// Errno is the symbolic name of an error (errno(3)), as in "ECONNREFUSED".
type Errno string

// The errors that a rule may give; see [HookErrors].
const (
	EACCES        Errno = "EACCES"
	EADDRINUSE    Errno = "EADDRINUSE"
	EADDRNOTAVAIL Errno = "EADDRNOTAVAIL"
	ECONNREFUSED  Errno = "ECONNREFUSED"
	EHOSTUNREACH  Errno = "EHOSTUNREACH"
	ENETUNREACH   Errno = "ENETUNREACH"
	EPERM         Errno = "EPERM"
	ETIMEDOUT     Errno = "ETIMEDOUT"
)

// HookErrors lists, for each hook, the errors that a rule of it may give.
var HookErrors = map[Hook][]Errno{
	Bind:    {EADDRINUSE, EADDRNOTAVAIL, EACCES, EPERM},
	Connect: {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EACCES, EPERM, ETIMEDOUT},
	Accept:  {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EACCES, ETIMEDOUT},
}

// Rule is one entry of a hook's list. The first that matches decides.
type Rule struct {
	Hook      Hook
	Log       bool
	Audit     bool // only with Deny: counted and reported, but the rules behind it decide
	Index     int  // from 1, in its list
	Action    Action
	Error     Errno       // empty: the hook's default; only with Deny
	Protocols []Protocol  // empty: all
	Ports     []PortRange // empty: all; bind and accept: local, connect: remote
	Local     []Peer      // empty: the namespace's addresses, all where it has none
	Peers     []Peer      // to or from; empty: any; never set for bind
	Pos       Position
}

// Defaults is what decides after the last rule. A nil entry is the silence
// that semantics give a meaning to: connect and accept are denied; bind is
// denied if the namespace lists bind rules.
type Defaults struct {
	Bind, Connect, Accept *Outcome
}

// For returns the default that the policy states for a hook, or nil.
func (d Defaults) For(h Hook) *Outcome {
	return [...]*Outcome{d.Bind, d.Connect, d.Accept}[h]
}

// Outcome is an action and, for Deny, its error (empty: the hook's default).
type Outcome struct {
	Action Action
	Error  Errno
	Pos    Position
}

// Protocol is a transport that rules can name.
type Protocol string

// The protocols, by their name in a policy file. ICMP stands for ping
// sockets of both families.
const (
	TCP     Protocol = "tcp"
	UDP     Protocol = "udp"
	SCTP    Protocol = "sctp"
	UDPLite Protocol = "udplite"
	ICMP    Protocol = "icmp"
)

// Protocols lists all protocols in the order of the language.
var Protocols = [...]Protocol{TCP, UDP, SCTP, UDPLite, ICMP}

// HasPorts reports whether sockets of the protocol have port numbers.
func (p Protocol) HasPorts() bool { return p != ICMP }

// PortRange is an inclusive range of port numbers, First <= Last.
type PortRange struct{ First, Last uint16 }

// Contains reports whether the range holds port.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// String returns "80" or "8000-8080".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// AddressRange is an inclusive range of addresses of one family, First <=
// Last, never IPv4-mapped and never with a zone. An address, a CIDR and a
// range of the language all become one.
type AddressRange struct{ First, Last netip.Addr }

// Contains reports whether the range holds addr.
func (r AddressRange) Contains(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.BitLen() == r.First.BitLen() && r.First.Compare(addr) <= 0 && addr.Compare(r.Last) <= 0
}

// Prefix returns the range as a prefix, if it is one.
func (r AddressRange) Prefix() (netip.Prefix, bool) {
	first, last := r.First.AsSlice(), r.Last.AsSlice()
	bits := 0
	for i := range first {
		if first[i] == last[i] {
			bits += 8
			continue
		}
		for mask := byte(0x80); first[i]&mask == last[i]&mask; mask >>= 1 {
			bits++
		}
		break
	}
	p, err := r.First.Prefix(bits)
	if err != nil || p.Addr() != r.First || lastAddr(p) != r.Last {
		return netip.Prefix{}, false
	}
	return p, true
}

// String returns the shortest form in the language: an address, a CIDR, or
// first-last.
func (r AddressRange) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	if p, ok := r.Prefix(); ok {
		return p.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// RangeOf returns the addresses of a prefix.
func RangeOf(p netip.Prefix) AddressRange {
	p = p.Masked()
	return AddressRange{p.Addr(), lastAddr(p)}
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// PeerKind says what a peer or a local is.
type PeerKind uint8

// The kinds of peers.
const (
	PeerAny PeerKind = iota
	PeerAddress
	PeerGroup
	PeerNamespace
	PeerSelf
	PeerUnmanaged
)

// Peer is the other end of a connection as a rule names it. In Rule.Local, a
// namespace (or self) stands for its addresses and unmanaged is not allowed.
type Peer struct {
	Kind    PeerKind
	Name    string       // PeerGroup, PeerNamespace
	Address AddressRange // PeerAddress
	Pos     Position
}

// String returns the peer in the language's words.
func (p Peer) String() string {
	switch p.Kind {
	case PeerAny:
		return "any"
	case PeerSelf:
		return "self"
	case PeerUnmanaged:
		return "unmanaged"
	case PeerAddress:
		return p.Address.String()
	default:
		return p.Name
	}
}

// Device returns the device namespace of that name, or nil.
func (p *Policy) Device(name string) *DeviceNamespace {
	for i := range p.DeviceNamespaces {
		if p.DeviceNamespaces[i].Name == name {
			return &p.DeviceNamespaces[i]
		}
	}
	return nil
}

// Group returns the group of that name, or nil.
func (p *Policy) Group(name string) *Group {
	for i := range p.Groups {
		if p.Groups[i].Name == name {
			return &p.Groups[i]
		}
	}
	return nil
}

// Namespace returns the socket namespace of that name, or nil. The name of an
// instance (user/1000) finds its template.
func (p *Policy) Namespace(name string) *SocketNamespace {
	name, _, _ = strings.Cut(name, "/")
	for i := range p.SocketNamespaces {
		if p.SocketNamespaces[i].Name == name {
			return &p.SocketNamespaces[i]
		}
	}
	return nil
}

// Names finds socket namespaces by their names, for who looks for many.
type Names map[string]*SocketNamespace

// Names returns an index of the socket namespaces.
func (p *Policy) Names() Names {
	names := make(Names, len(p.SocketNamespaces))
	for i := range p.SocketNamespaces {
		names[p.SocketNamespaces[i].Name] = &p.SocketNamespaces[i]
	}
	return names
}

// Namespace is [Policy.Namespace].
func (n Names) Namespace(name string) *SocketNamespace {
	name, _, _ = strings.Cut(name, "/")
	return n[name]
}

// InstanceName returns the name of the instance that a template makes for a
// cgroup: the template's name and what the pattern's wildcards stand for.
// ok is false if the cgroup does not match the template's pattern.
//
// For the template "user" with each: /user.slice/user-*.slice, the cgroup
// /user.slice/user-1000.slice makes "user/1000".
func InstanceName(template, pattern, cgroup string) (name string, ok bool) {
	pp, cp := strings.Split(pattern, "/"), strings.Split(cgroup, "/")
	if len(pp) != len(cp) {
		return "", false
	}
	name = template
	for i := range pp {
		if !strings.Contains(pp[i], "*") {
			if pp[i] != cp[i] {
				return "", false
			}
			continue
		}
		prefix, suffix, _ := strings.Cut(pp[i], "*")
		c := cp[i]
		if len(c) <= len(prefix)+len(suffix) || !strings.HasPrefix(c, prefix) || !strings.HasSuffix(c, suffix) {
			return "", false
		}
		name += "/" + c[len(prefix):len(c)-len(suffix)]
	}
	return name, true
}
