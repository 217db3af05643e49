package model

import (
	"bytes"
	"maps"
	"runtime"
	"slices"
	"sync"
)

// Parsed is what the files of a policy say, each by itself: what serves when
// some of them are parsed again. It is a plain value that nobody modifies.
type Parsed struct{ files map[string]*parsed }

// parsed is what one file says. What crosses files is not looked at: names may
// be taken or lead nowhere, and peers that are groups are not known to be.
type parsed struct {
	File
	said    *Policy // what adds up; of the rest, see once
	list    Diagnostics
	devices []declared
	names   []declared
	once    []once
	refs    []deviceRef
	// peers are the names of peers that this file has, each once, and groups
	// those among them that were groups when resolved was made.
	peers    []string
	groups   []string
	resolved []SocketNamespace
}

// Reparse is [Parse] that takes what a former call made of files whose name and
// text are the same; nil: nothing. What comes out is what Parse returns. Policies
// share the memory of what is the same.
func Reparse(files []File, last *Parsed) (*Policy, Diagnostics, *Parsed) {
	all := make([]*parsed, len(files))
	var missing []int
	for i, f := range files {
		if last != nil {
			if known := last.files[f.Name]; known != nil && bytes.Equal(known.Data, f.Data) {
				all[i] = known
				continue
			}
		}
		missing = append(missing, i)
	}
	parseFiles(files, missing, all)
	for _, i := range missing {
		if last != nil && last.files[files[i].Name] != nil {
			all[i].takeSame(last.files[files[i].Name])
		}
	}
	m := newMerger(files, all)
	m.merge()
	m.check()
	kept := &Parsed{files: make(map[string]*parsed, len(all))}
	for i, p := range all {
		kept.files[files[i].Name] = p
	}
	return m.policy, m.sorted(), kept
}

// parseFiles parses some of the files, which know nothing of one another, on all
// processors.
func parseFiles(files []File, which []int, to []*parsed) {
	var group sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(which))
	for w := range workers {
		group.Go(func() {
			for i := w; i < len(which); i += workers {
				to[which[i]] = parseFile(files[which[i]])
			}
		})
	}
	group.Wait()
}

func parseFile(f File) *parsed {
	r := newReader(nil)
	r.file(f)
	p := &parsed{File: f, said: r.policy, list: r.list, devices: r.devices, names: r.names, once: r.once, refs: r.deviceRefs}
	peers := make(map[string]bool)
	p.eachPeer(func(peer *Peer) {
		if !peers[peer.Name] {
			peers[peer.Name] = true
			p.peers = append(p.peers, peer.Name)
		}
	})
	p.resolved = p.said.SocketNamespaces
	return p
}

// eachPeer visits the peers that are names.
func (p *parsed) eachPeer(visit func(*Peer)) {
	for i := range p.said.SocketNamespaces {
		for _, h := range Hooks {
			for _, rule := range p.said.SocketNamespaces[i].Rules(h) {
				for _, list := range [...][]Peer{rule.Local, rule.Peers} {
					for k := range list {
						if list[k].Kind == PeerNamespace {
							visit(&list[k])
						}
					}
				}
			}
		}
	}
}

// with returns the same with the peers that are groups known to be.
func (p *parsed) with(groups map[string]bool) *parsed {
	var mine []string
	for _, name := range p.peers {
		if groups[name] {
			mine = append(mine, name)
		}
	}
	if slices.Equal(mine, p.groups) {
		return p
	}
	other := *p
	other.groups = mine
	other.resolved = make([]SocketNamespace, len(p.said.SocketNamespaces))
	for i, n := range p.said.SocketNamespaces {
		n.Bind, n.Connect, n.Accept = resolveRules(n.Bind, groups), resolveRules(n.Connect, groups), resolveRules(n.Accept, groups)
		other.resolved[i] = n
	}
	return &other
}

// resolveRules returns rules in which the peers that are groups are known to be,
// the same ones if there are none.
func resolveRules(rules []Rule, groups map[string]bool) []Rule {
	copied := false
	for i := range rules {
		local, a := resolvePeers(rules[i].Local, groups)
		peers, b := resolvePeers(rules[i].Peers, groups)
		if !a && !b {
			continue
		}
		if !copied {
			rules, copied = slices.Clone(rules), true
		}
		rules[i].Local, rules[i].Peers = local, peers
	}
	return rules
}

func resolvePeers(peers []Peer, groups map[string]bool) (list []Peer, changed bool) {
	for i := range peers {
		if peers[i].Kind != PeerNamespace || !groups[peers[i].Name] {
			continue
		}
		if !changed {
			peers, changed = slices.Clone(peers), true
		}
		peers[i].Kind = PeerGroup
	}
	return peers, changed
}

// merger makes one policy of what files say.
type merger struct {
	reader
	all     []*parsed
	devices map[string]Position // names of device namespaces
	names   map[string]Position // names of groups and socket namespaces
	once    map[string]Position
}

func newMerger(files []File, all []*parsed) *merger {
	names := 0
	for _, p := range all {
		names += len(p.names)
	}
	m := &merger{
		reader: *newReader(files), all: all,
		devices: make(map[string]Position), names: make(map[string]Position, names), once: make(map[string]Position),
	}
	m.policy.DeviceNamespaces = []DeviceNamespace{{Name: HostDevice}}
	m.policy.UDPTimeout, m.policy.Syscalls = DefaultUDPTimeout, SyscallsAuto
	return m
}

// merge adds the files up, and reports what they can't all have.
func (m *merger) merge() {
	groups := make(map[string]bool)
	twice := make([][]bool, len(m.all)) // of the names of a file: somebody else has it
	namespaces := 0
	for i, p := range m.all {
		m.list = append(m.list, p.list...)
		for j, n := range p.names {
			if m.taken(n, m.names) {
				if twice[i] == nil {
					twice[i] = make([]bool, len(p.names))
				}
				twice[i][j] = true
			} else if n.group {
				groups[n.name] = true
			}
		}
		namespaces += len(p.said.SocketNamespaces)
		m.addDevices(p)
		m.addOnce(p)
		m.policy.Tests = append(m.policy.Tests, p.said.Tests...)
	}
	if namespaces > 0 && len(m.all) > 1 {
		m.policy.SocketNamespaces = make([]SocketNamespace, 0, namespaces)
	}
	for i, p := range m.all {
		p = p.with(groups)
		m.all[i] = p
		if twice[i] == nil {
			m.policy.Groups = append(m.policy.Groups, p.said.Groups...)
			if len(m.all) == 1 {
				m.policy.SocketNamespaces = slices.Clip(p.resolved)
			} else {
				m.policy.SocketNamespaces = append(m.policy.SocketNamespaces, p.resolved...)
			}
			continue
		}
		g, n := 0, 0
		for j, name := range p.names {
			switch {
			case name.group:
				if !twice[i][j] {
					m.policy.Groups = append(m.policy.Groups, p.said.Groups[g])
				}
				g++
			default:
				if !twice[i][j] {
					m.policy.SocketNamespaces = append(m.policy.SocketNamespaces, p.resolved[n])
				}
				n++
			}
		}
	}
	m.undeclared()
}

// taken takes a name, or reports that somebody has it.
func (m *merger) taken(n declared, names map[string]Position) bool {
	first, twice := names[n.name]
	if twice {
		m.errorf(n.pos, "the name %q is given twice, first at %s: choose another", n.name, first)
	} else {
		names[n.name] = n.pos
	}
	return twice
}

func (m *merger) addDevices(p *parsed) {
	at := 0 // those that are named but not well said are left out of the policy
	for _, n := range p.devices {
		said := at < len(p.said.DeviceNamespaces) && p.said.DeviceNamespaces[at].Pos == n.pos
		if !m.taken(n, m.devices) && said {
			m.policy.DeviceNamespaces = append(m.policy.DeviceNamespaces, p.said.DeviceNamespaces[at])
		}
		if said {
			at++
		}
	}
}

func (m *merger) addOnce(p *parsed) {
	for _, o := range p.once {
		if first, twice := m.once[o.name]; twice {
			m.errorf(o.pos, "%s is given twice, first at %s: keep one", o.name, first)
			continue
		}
		m.once[o.name] = o.pos
		m.list = append(m.list, o.list...)
		if o.said.UDPTimeout != 0 {
			m.policy.UDPTimeout = o.said.UDPTimeout
		}
		if o.said.Syscalls != "" {
			m.policy.Syscalls = o.said.Syscalls
		}
	}
}

// undeclared reports names of peers and of device namespaces that lead nowhere.
func (m *merger) undeclared() {
	var known []string // for suggestions, when needed
	absent := func(name string) bool { _, ok := m.names[name]; return !ok }
	for i, p := range m.all {
		if slices.ContainsFunc(p.peers, absent) {
			m.all[i].eachPeer(func(peer *Peer) {
				if !absent(peer.Name) {
					return
				}
				if known == nil {
					known = append(sortedKeys(m.names), reserved...)
				}
				m.errorf(peer.Pos, "%q is not declared%s (a name is one of a group or of a socket namespace)", peer.Name, suggest(peer.Name, known))
			})
		}
	}
	devices := maps.Clone(m.devices)
	devices[HostDevice] = Position{}
	for _, p := range m.all {
		for _, ref := range p.refs {
			if _, ok := devices[ref.name]; !ok {
				m.errorf(ref.pos, "device namespace %q is not declared%s (declared: %s)", ref.name, suggest(ref.name, sortedKeys(devices)), oneOf(sortedKeys(devices)))
			}
		}
	}
}
