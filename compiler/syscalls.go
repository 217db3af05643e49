package compiler

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/syscalls"
)

// CallIndex says what a member of each namespace or template is to the syscall
// tier, but for its cgroup and, with an instance of a template, its identity.
type CallIndex map[string]syscalls.Member

// Member returns what a cgroup of a namespace or instance is; ix is the index
// of its device namespace.
func (ci CallIndex) Member(m Member, ix *Index) syscalls.Member {
	call := ci[templateOf(m.Namespace)]
	call.Cgroup, call.Identity = m.ID, ix.id(m.Namespace)
	return call
}

// CompileSyscalls turns a policy into what the cgroup-BPF programs read: the
// same rules as the tables', as far as a call can tell.
func CompileSyscalls(p *model.Policy, f Facts) (*syscalls.Program, CallIndex) {
	return compileSyscalls(p, f, &kept{})
}

// CompileSyscalls is the same, of a policy and facts that mostly are those of the
// program.
func (prog *Program) CompileSyscalls(p *model.Policy, f Facts) (*syscalls.Program, CallIndex) {
	return compileSyscalls(p, f, prog.kept)
}

func compileSyscalls(p *model.Policy, f Facts, last *kept) (*syscalls.Program, CallIndex) {
	c := &callCompiler{
		last: last, alike: make(map[alikeCalls]uint32),
		policy: p, names: p.Names(), prog: &syscalls.Program{}, index: make(CallIndex),
		shared: make(map[[sha256.Size]byte]uint32), tables: make(map[[sha256.Size]byte]syscalls.Span),
		known: make(map[addressSlice]syscalls.Entry), said: make(map[[sha256.Size]byte]uint32), sources: make(map[string]uint32),
	}
	for i := range p.SocketNamespaces {
		c.sources[p.SocketNamespaces[i].Name] = uint32(i + 1)
	}
	for _, d := range p.DeviceNamespaces {
		facts, ok := f.Devices[d.Name]
		if !ok {
			continue
		}
		was := last.devices[d.Name]
		spaces := was.spacesAfter(p, d.Name, last.facts, f)
		c.device(d.Name, facts, spaces, was.identitiesAfter(spaces))
	}
	return c.prog, c.index
}

// callCompiler builds a program for all device namespaces.
type callCompiler struct {
	policy  *model.Policy
	names   model.Names
	last    *kept                 // of a former compilation
	alike   map[alikeCalls]uint32 // index of a policy by what it was then
	prog    *syscalls.Program
	index   CallIndex
	shared  map[[sha256.Size]byte]uint32        // index of a policy by its content
	said    map[[sha256.Size]byte]uint32        // and by what its namespace says
	tables  map[[sha256.Size]byte]syscalls.Span // by their content
	known   map[addressSlice]syscalls.Entry
	text    []byte            // whose digest is taken
	sources map[string]uint32 // by the name of a namespace or template
}

func (c *callCompiler) device(name string, facts DeviceFacts, spaces []*space, ids map[string]uint32) {
	if len(spaces) == 0 {
		return
	}
	c.prog.Netns = append(c.prog.Netns, facts.Cookie)
	owners := firstOwners(spaces, ids)
	for _, a := range facts.Locals {
		c.prog.Locals = append(c.prog.Locals, syscalls.Local{Netns: facts.Cookie, Address: syscalls.AddressOf(a), Owner: owners[a]})
	}
	taken := map[bool][4]syscalls.Span{} // by whether a namespace has all addresses
	taken[true] = c.spans(takenPorts(c.policy, name, "", &model.SocketNamespace{}))
	taken[false] = c.spans(takenPorts(c.policy, name, "", &model.SocketNamespace{Addresses: make([]model.AddressRange, 1)}))
	sharing := c.policy.Sharing()
	shared := map[string][4]syscalls.Span{} // by the addresses
	for _, s := range spaces {
		n := s.source
		member, done := c.index[n.Name]
		if !done {
			t := taken[len(n.Addresses) == 0]
			switch {
			case deniesUnnamed(n):
				t = c.spans(takenPorts(c.policy, name, n.Name, n))
			case sharing[n]:
				var known bool
				key := fmt.Sprint(n.Addresses)
				if t, known = shared[key]; !known {
					t = c.spans(takenPorts(c.policy, name, "", n))
					shared[key] = t
				}
			}
			member = syscalls.Member{Netns: facts.Cookie, Policy: c.lists(n, t), Source: c.sources[n.Name], Audit: n.Mode == model.Audit}
			c.index[n.Name] = member
		}
		for _, m := range s.members {
			member.Cgroup, member.Identity = m.ID, ids[s.name]
			c.prog.Members = append(c.prog.Members, member)
		}
	}
}

// firstOwners returns which space, of those that have members, lists an
// address first. Prefixes and ranges don't count.
func firstOwners(spaces []*space, ids map[string]uint32) map[netip.Addr]uint32 {
	owners := make(map[netip.Addr]uint32)
	for _, s := range spaces {
		if len(s.members) == 0 {
			continue
		}
		for _, a := range s.source.Addresses {
			if _, taken := owners[a.First]; a.First == a.Last && !taken {
				owners[a.First] = ids[s.name]
			}
		}
	}
	return owners
}

// lists returns the index of a namespace's policy, one that is there already
// if it says the same. Most of the work is to find that out, so it is asked
// about the policy's words first; those of others are compared by what they become.
func (c *callCompiler) lists(n *model.SocketNamespace, taken [4]syscalls.Span) uint32 {
	was := c.last.alike(n)
	if index, ok := c.alike[alikeCalls{was, taken}]; ok && was != nil {
		return index
	}
	index := c.listsSaid(n, taken)
	c.alike[alikeCalls{was, taken}] = index
	return index
}

// alikeCalls tells policies apart of namespaces that have not changed: those that
// said the same had the same chains.
type alikeCalls struct {
	was   *chains
	taken [4]syscalls.Span
}

// alike returns the chains of a namespace that says the same as before; nil if
// it does not.
func (k *kept) alike(n *model.SocketNamespace) *chains {
	was := k.devices[n.Device]
	if was == nil {
		return nil
	}
	if o := was.resolver.names[n.Name]; o == nil || !n.Same(o) {
		return nil
	}
	return was.policies[n.Name]
}

func (c *callCompiler) listsSaid(n *model.SocketNamespace, taken [4]syscalls.Span) uint32 {
	key := c.text[:0]
	for _, t := range taken {
		key = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(key, t.First), t.Count)
	}
	c.text = appendSaid(key, n)
	said := sha256.Sum256(c.text)
	if index, ok := c.said[said]; ok {
		return index
	}
	index := c.listsOf(n, taken)
	c.said[said] = index
	return index
}

func (c *callCompiler) listsOf(n *model.SocketNamespace, taken [4]syscalls.Span) uint32 {
	l := &callLists{policy: c.policy, names: c.names, n: n, sources: c.sources, known: c.known, table: c.table}
	parts := [][]syscalls.Entry{l.hook(model.Bind), l.hook(model.Connect), l.hook(model.Accept)}
	pol := syscalls.Policy{Own: c.table(addressRanges(n.Addresses)), Taken: taken, Flags: addressFlags(n)}
	pol.Source4, pol.Source6 = firstAddress(n, true), firstAddress(n, false)
	c.text = appendCalls(c.text[:0], pol, parts)
	key := sha256.Sum256(c.text)
	if index, ok := c.shared[key]; ok {
		return index
	}
	for i, span := range []*syscalls.Span{&pol.Bind, &pol.Connect, &pol.Accept} {
		*span = c.put(parts[i])
	}
	index := uint32(len(c.prog.Policies))
	c.prog.Policies = append(c.prog.Policies, pol)
	c.shared[key] = index
	return index
}

// appendCalls appends what is the same for two policies that say the same.
func appendCalls(b []byte, p syscalls.Policy, parts [][]syscalls.Entry) []byte {
	b, _ = binary.Append(b, binary.NativeEndian, p)
	for _, part := range parts {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(part)))
		for i := range part {
			b = part[i].Append(b)
		}
	}
	return b
}

func (c *callCompiler) put(entries []syscalls.Entry) syscalls.Span {
	span := syscalls.Span{First: uint32(len(c.prog.Entries)), Count: uint32(len(entries))}
	c.prog.Entries = append(c.prog.Entries, entries...)
	return span
}

func (c *callCompiler) spans(lists [4][]model.PortRange) (spans [4]syscalls.Span) {
	for i, ports := range lists {
		spans[i] = c.table(portRanges(ports))
	}
	return spans
}

// table puts sorted ranges that do not overlap where entries find them, once.
func (c *callCompiler) table(ranges []syscalls.Range) syscalls.Span {
	if len(ranges) == 0 {
		return syscalls.Span{}
	}
	c.text = c.text[:0]
	for i := range ranges {
		c.text = ranges[i].Append(c.text)
	}
	key := sha256.Sum256(c.text)
	span, ok := c.tables[key]
	if !ok {
		span = syscalls.Span{First: uint32(len(c.prog.Ranges)), Count: uint32(len(ranges))}
		c.prog.Ranges = append(c.prog.Ranges, ranges...)
		c.tables[key] = span
	}
	return span
}

// callLists makes the entries of one namespace's lists.
type callLists struct {
	policy  *model.Policy
	names   model.Names
	n       *model.SocketNamespace
	sources map[string]uint32
	known   map[addressSlice]syscalls.Entry // what matches them
	table   func([]syscalls.Range) syscalls.Span
}

// hook writes one list. What follows its rules is the same as in
// model.Decide: two sockets of one namespace, then the default.
func (l *callLists) hook(h model.Hook) []syscalls.Entry {
	var list []syscalls.Entry
	rules := l.n.Rules(h)
	for i := range rules {
		list = append(list, l.rule(&rules[i])...)
	}
	end := syscalls.Entry{Kind: syscalls.Default, Protocols: syscalls.AllProtocols, Action: syscalls.Allow}
	denies := false
	var errno model.Errno
	if h == model.Bind {
		denies = bindDefaultDenies(l.n)
		if d := l.n.Default.Bind; d != nil {
			errno = d.Error
		}
	} else {
		list = append(list, syscalls.Entry{Kind: syscalls.Verdict, Protocols: syscalls.AllProtocols, Peer: syscalls.PeerSelf, Action: syscalls.Allow})
		errno, denies = defaultOf(l.n, h)
	}
	if denies {
		end.Action, end.Error = syscalls.Deny, errnoNumber(errno)
	}
	return append(list, end)
}

// rule writes a rule: what matches, and the verdict, which matches the port, the
// namespace's own addresses and the peer itself where there is no choice.
func (l *callLists) rule(r *model.Rule) []syscalls.Entry {
	var list []syscalls.Entry
	verdict := syscalls.Entry{Kind: syscalls.Verdict, Protocols: callProtocols(r), Action: syscalls.Allow, Rule: uint16(min(r.Index, 1<<16-1)), Tag: RuleTag(r)}
	match := func(e syscalls.Entry, dimension syscalls.Need) {
		e.Protocols, e.Needs = verdict.Protocols, verdict.Needs&^dimension
		list = append(list, e)
	}
	if ports := portRanges(mergePorts(r.Ports)); len(ports) == 1 {
		verdict.Here |= syscalls.HerePort
		verdict.PortFirst, verdict.PortLast = uint16(ports[0].First[3]), uint16(ports[0].Last[3])
	} else if len(ports) > 1 {
		verdict.Needs |= syscalls.NeedPort
		match(syscalls.Entry{Kind: syscalls.Port, Table: l.table(ports)}, syscalls.NeedPort)
	}
	if local, any := l.local(r); len(r.Local) == 0 {
		verdict.Here |= syscalls.HereOwn
	} else if !any {
		verdict.Needs |= syscalls.NeedLocal
		for _, e := range local {
			match(e, syscalls.NeedLocal)
		}
	}
	switch peers, named := l.peers(r); {
	case !named:
	case len(peers) == 1:
		p := peers[0]
		verdict.Peer, verdict.First, verdict.Last, verdict.Source, verdict.Table = p.Kind, p.First, p.Last, p.Source, p.Table
	default:
		verdict.Needs |= syscalls.NeedPeer
		for _, p := range peers {
			match(p, syscalls.NeedPeer)
		}
	}
	if r.Action == model.Deny {
		verdict.Action = syscalls.Deny
		verdict.Error = errnoNumber(r.Error)
		if r.Hook != model.Bind && r.Error == "" {
			verdict.Error = errnoNumber(model.ECONNREFUSED)
		}
		if r.Audit {
			verdict.Action |= syscalls.Audit
		}
	} else if r.Log {
		verdict.Action |= syscalls.Logs
	}
	return append(list, verdict)
}

// local returns the entry for the local addresses that a rule names, if there are
// some. With any they are all that there are: in a bind list not the wildcard, which
// the programs write as the last address of all.
func (l *callLists) local(r *model.Rule) (list []syscalls.Entry, any bool) {
	var local []model.AddressRange
	for _, p := range r.Local {
		switch {
		case p.Kind != model.PeerAny:
			local = join(local, l.policy.PeerAddresses(p, l.n))
		case r.Hook == model.Bind:
			return []syscalls.Entry{{Kind: syscalls.LocalAddress, Last: lastAddress}}, false
		default:
			return nil, true
		}
	}
	return l.addresses(nil, syscalls.LocalAddress, local), false
}

// longSlice is from when on what a slice becomes is kept.
const longSlice = 16

// addresses appends the entry that matches addresses, if there are some. Those of
// a group are the same slice wherever it is named: a long one is looked at once.
func (l *callLists) addresses(list []syscalls.Entry, kind syscalls.Kind, addresses []model.AddressRange) []syscalls.Entry {
	if len(addresses) == 0 {
		return list
	}
	key := addressSlice{&addresses[0], len(addresses)}
	e, known := l.known[key]
	if !known {
		if ranges := addressRanges(addresses); len(ranges) == 1 {
			e.First, e.Last = ranges[0].First, ranges[0].Last
		} else {
			e.Table = l.table(ranges)
		}
		if len(addresses) >= longSlice {
			l.known[key] = e
		}
	}
	e.Kind = kind
	return append(list, e)
}

// addressSlice is a slice of a policy that is not changed.
type addressSlice struct {
	first *model.AddressRange
	count int
}

// join appends addresses to others. To none it is they themselves.
func join(list, more []model.AddressRange) []model.AddressRange {
	if len(list) == 0 {
		return more
	}
	return append(slices.Clip(list), more...)
}

// peers returns the entries for a rule's peers; named is false if it speaks of any.
func (l *callLists) peers(r *model.Rule) (list []syscalls.Entry, named bool) {
	if len(r.Peers) == 0 {
		return nil, false
	}
	var plain, remote []model.AddressRange
	var sources []uint32
	for _, p := range r.Peers {
		switch p.Kind {
		case model.PeerAny:
			return nil, false
		case model.PeerSelf:
			list = append(list, syscalls.Entry{Kind: syscalls.PeerSelf})
		case model.PeerUnmanaged:
			list = append(list, syscalls.Entry{Kind: syscalls.PeerUnmanaged})
		case model.PeerNamespace:
			sources = append(sources, l.sources[p.Name])
			if named := l.names.Namespace(p.Name); named != nil {
				remote = join(remote, named.Addresses)
			}
		default:
			plain = join(plain, l.policy.PeerAddresses(p, l.n))
		}
	}
	switch named := numberRanges(sources); {
	case len(named) == 1 && named[0].First == named[0].Last:
		list = append(list, syscalls.Entry{Kind: syscalls.PeerSource, Source: named[0].First[3]})
	case len(named) > 0:
		list = append(list, syscalls.Entry{Kind: syscalls.PeerSource, Table: l.table(named)})
	}
	list = l.addresses(list, syscalls.PeerAddress, plain)
	return l.addresses(list, syscalls.PeerRemoteAddress, remote), true
}

var protocolBits = map[model.Protocol]syscalls.Protocols{
	model.TCP: syscalls.TCP, model.UDP: syscalls.UDP, model.SCTP: syscalls.SCTP,
	model.UDPLite: syscalls.UDPLite, model.ICMP: syscalls.ICMP,
}

func callProtocols(r *model.Rule) syscalls.Protocols {
	if len(r.Protocols) == 0 {
		if len(r.Ports) > 0 {
			return syscalls.WithPorts
		}
		return syscalls.AllProtocols
	}
	var set syscalls.Protocols
	for _, p := range r.Protocols {
		set |= protocolBits[p]
	}
	return set
}

// portRanges returns merged ports as ranges of a table.
func portRanges(ports []model.PortRange) []syscalls.Range {
	list := make([]syscalls.Range, 0, len(ports))
	for _, p := range ports {
		list = append(list, syscalls.NumberRange(uint32(p.First), uint32(p.Last)))
	}
	return list
}

// numberRanges returns numbers as the ranges of a table.
func numberRanges(numbers []uint32) []syscalls.Range {
	slices.Sort(numbers)
	var list []syscalls.Range
	for _, n := range numbers {
		if last := len(list) - 1; last >= 0 && n <= list[last].Last[3]+1 {
			list[last].Last[3] = n
			continue
		}
		list = append(list, syscalls.NumberRange(n, n))
	}
	return list
}

// The programs keep IPv4 addresses mapped into IPv6 (::ffff:0:0/96), and write
// the wildcard of a bind as the last address of all: ranges of IPv6 leave out both.
var (
	beforeMapped = syscalls.Address{0, 0, 0xfffe, 1<<32 - 1}
	behindMapped = syscalls.Address{0, 0, 0x10000, 0}
	lastAddress  = syscalls.Address{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 2}
)

// addressRanges returns addresses as the ranges of a table.
func addressRanges(ranges []model.AddressRange) []syscalls.Range {
	var list []syscalls.Range
	for _, r := range mergeAddresses(ranges) {
		e := syscalls.Range{First: syscalls.AddressOf(r.First), Last: syscalls.AddressOf(r.Last)}
		if r.First.Is4() {
			list = append(list, e)
			continue
		}
		if slices.Compare(e.Last[:], lastAddress[:]) > 0 {
			e.Last = lastAddress
		}
		if slices.Compare(e.First[:], beforeMapped[:]) <= 0 && slices.Compare(e.Last[:], behindMapped[:]) >= 0 {
			list = append(list, syscalls.Range{First: e.First, Last: beforeMapped})
			e.First = behindMapped
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b syscalls.Range) int { return slices.Compare(a.First[:], b.First[:]) })
	return list
}

func errnoNumber(e model.Errno) uint16 {
	return errnoNumbers[e]
}

var errnoNumbers = map[model.Errno]uint16{
	model.EACCES: uint16(unix.EACCES), model.EADDRINUSE: uint16(unix.EADDRINUSE),
	model.EADDRNOTAVAIL: uint16(unix.EADDRNOTAVAIL), model.ECONNREFUSED: uint16(unix.ECONNREFUSED),
	model.EHOSTUNREACH: uint16(unix.EHOSTUNREACH), model.ENETUNREACH: uint16(unix.ENETUNREACH),
	model.EPERM: uint16(unix.EPERM), model.ETIMEDOUT: uint16(unix.ETIMEDOUT),
}

// addressFlags say what a wildcard bind of the namespace means.
func addressFlags(n *model.SocketNamespace) syscalls.PolicyFlags {
	if len(n.Addresses) == 0 {
		return syscalls.OwnsAll
	}
	var flags syscalls.PolicyFlags
	four, six := familyAddresses(n, true), familyAddresses(n, false)
	if len(four) == 0 {
		flags |= syscalls.NoAddress4
	}
	if len(six) == 0 {
		flags |= syscalls.NoAddress6
	}
	if one(four) {
		flags |= syscalls.OneAddress4
	}
	if one(six) {
		flags |= syscalls.OneAddress6
	}
	return flags
}

func one(ranges []model.AddressRange) bool {
	return len(ranges) == 1 && ranges[0].First == ranges[0].Last
}

// familyAddresses returns a namespace's own addresses of one family, in its
// order, loopback aside.
func familyAddresses(n *model.SocketNamespace, four bool) []model.AddressRange {
	var list []model.AddressRange
	for _, a := range n.Addresses {
		if a.First.Is4() == four && !a.First.IsLoopback() {
			list = append(list, a)
		}
	}
	return list
}

// firstAddress is the source of the namespace's connections that bind none.
// The first address of a range may not exist here, so only a single one counts.
func firstAddress(n *model.SocketNamespace, four bool) syscalls.Address {
	for _, a := range familyAddresses(n, four) {
		if a.First == a.Last {
			return syscalls.AddressOf(a.First)
		}
	}
	if four {
		return syscalls.AddressOf(netip.IPv4Unspecified())
	}
	return syscalls.Address{}
}

// deniesUnnamed reports whether a bind rule denies without an errno, so that
// it matters which ports are others'.
func deniesUnnamed(n *model.SocketNamespace) bool {
	return slices.ContainsFunc(n.Bind, func(r model.Rule) bool { return r.Action == model.Deny && r.Error == "" })
}

// takenPorts lists the ports that the namespaces of a device namespace, but
// one, may bind because a rule says so: anywhere for TCP and UDP, then on
// addresses of their own for TCP and UDP. To a namespace that shares addresses
// with one (that has all of them with each) its ports are taken anywhere.
func takenPorts(p *model.Policy, device, but string, to *model.SocketNamespace) (lists [4][]model.PortRange) {
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		if n.Device != device || n.Name == but {
			continue
		}
		at := 0
		if !to.Shares(n) {
			at = 2
		}
		for _, r := range n.Bind {
			if r.Action != model.Allow || len(r.Local) > 0 || len(r.Ports) == 0 {
				continue
			}
			set := callProtocols(&r)
			if set&syscalls.TCP != 0 {
				lists[at] = append(lists[at], r.Ports...)
			}
			if set&syscalls.UDP != 0 {
				lists[at+1] = append(lists[at+1], r.Ports...)
			}
		}
	}
	for i := range lists {
		lists[i] = mergePorts(lists[i])
		sort.Slice(lists[i], func(a, b int) bool { return lists[i][a].First < lists[i][b].First })
	}
	return lists
}
