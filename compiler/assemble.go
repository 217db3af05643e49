package compiler

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// The base chains, by the names of their hooks, and the chains that they
// lead to before a policy is asked.
const (
	chainInput   = "input"
	chainOutput  = "output"
	chainArrived = "arrived" // input: which policy receives? One for each transport.
	chainNear    = "near"    // input from lo: which policies send and receive? One for each transport.
	chainLeave   = "leave"   // output, not through lo: which policy sends?
	chainMark    = "sent"    // output through lo: say who sends
	chainOther   = "other"   // output, neither UDP nor TCP

	chainMarked      = "marked"       // chainNear and chainArrived for packets that have a mark
	chainLeaveMarked = "leave.marked" // chainLeave for those
)

// TCP header flags (RFC 9293) that tell the packet that opens a connection.
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10
)

const (
	icmpEchoRequest   = 8   // RFC 792
	icmpv6EchoRequest = 128 // RFC 4443
	pktLoopback       = 5   // PACKET_LOOPBACK, linux/if_packet.h
)

// answersSize bounds the datagram flows whose answers are expected at one time.
const answersSize = 1 << 18

// The names of the maps of one cgroup level.
var (
	identityMap  = perLevel("identity_")  // cgroup -> identity
	classMap     = perLevel("class_")     // cgroup -> class of its policy
	selfSet      = perLevel("self_")      // identity, cgroup
	doorMap      = perLevel("door_")      // cgroup -> chain held
	unmanagedSet = perLevel("unmanaged_") // cgroup
	heldChain    = perLevel("held_")
)

// perLevel returns a function that names what there is for each level. The names
// are made once: each member asks for some.
func perLevel(prefix string) func(level int) string {
	var names [16]string // deeper ones are rare
	for level := range names {
		names[level] = prefix + strconv.Itoa(level)
	}
	return func(level int) string {
		if level < len(names) {
			return names[level]
		}
		return prefix + strconv.Itoa(level)
	}
}

// The maps that lead to policies. Cgroups lead to classes, and classes to
// chains: no element that comes or goes with a cgroup has a verdict.
const (
	// namespacesMap maps each identity to its policy's local part. It holds
	// every socket namespace, whether it has members or not.
	namespacesMap = "namespaces"
	templatesMap  = "templates" // the same for templates, by what the identities of their instances begin with
	connectsMap   = "connects"  // class -> chain of the list
	selvesMap     = "selves"
)

// acceptsMap maps classes to the chains of accept lists for a transport.
func acceptsMap(t transports) string { return "accepts" + t.suffix() }

// classField is the class of a policy in the mark.
var classField = []nft.Field{{Kind: nft.FieldMark, Mask: classBits}}

func answersSet(family int, timeout time.Duration) string {
	return fmt.Sprintf("answers%d_%s", family, strings.ReplaceAll(timeout.String(), ".", "_"))
}

// assembly is the table of one device namespace being built.
type assembly struct {
	*resolver
	table *nft.Table
	doors []int // levels of doors, deepest first
	index *Index
	// policies are those of the namespaces and templates by name.
	policies  map[string]*chains
	templates bool // some namespace is one
}

func assemble(r *resolver, spaces []*space, policies map[string]*chains, f Facts) (*nft.Table, *Index) {
	a := &assembly{resolver: r, policies: policies, table: &nft.Table{
		Name:    TableName,
		Comment: TableComment(f.Instance),
	}}
	doors := a.doorsOf(spaces, f)
	if a.index = r.index; a.index == nil {
		a.index = newIndex(r, policies, a.deep, a.always)
	}
	a.maps(spaces)
	a.doorSets(doors)
	a.sharedSets(policies)
	a.listSets(policies)
	seen := make(map[string]bool)
	var lists [][]*nft.Chain
	count := 0
	for _, s := range spaces {
		c := policies[s.source.Name]
		if seen[c.name] {
			continue
		}
		seen[c.name] = true
		lists, count = append(lists, c.list), count+len(c.list)
	}
	const others = 64
	a.table.Chains = slices.Grow(a.table.Chains, count+others)
	for _, list := range lists {
		for _, chain := range list {
			a.table.Chains = append(a.table.Chains, *chain)
		}
	}
	a.senderChain()
	a.endings()
	a.refusalChains(policies)
	a.outputChains()
	a.inputChains()
	return a.table, a.index
}

const tableCommentPrefix = "sockns of network namespace "

// TableComment returns the comment of the tables that one instance makes: the
// cookie of its host device namespace (SO_NETNS_COOKIE) tells instances apart.
func TableComment(instance uint64) string {
	return fmt.Sprintf("%s%d", tableCommentPrefix, instance)
}

// unitLevel is where systemd puts most units: /system.slice/nginx.service.
const unitLevel = 2

// levelsOf returns the depths that members have, and those that they will have
// by the policy alone, deepest first; and the latter once more.
func levelsOf(spaces []*space) (levels []int, always map[int]bool) {
	always = make(map[int]bool)
	for _, s := range spaces {
		for _, m := range s.source.Members {
			if m.Unit != "" {
				always[unitLevel] = true
			} else {
				always[strings.Count(m.Cgroup, "/")] = true
			}
		}
		if s.source.Each != "" {
			always[strings.Count(s.source.Each, "/")] = true
		}
	}
	used := maps.Clone(always)
	for _, s := range spaces {
		for _, m := range s.members {
			used[m.Level] = true
		}
	}
	return slices.SortedFunc(maps.Keys(used), func(a, b int) int { return b - a }), always
}

func cgroupKey(level int) []nft.Field {
	return []nft.Field{{Kind: nft.FieldCgroup, Level: uint8(level)}}
}

var priorityField = nft.Field{Kind: nft.FieldPriority}

func cgroupValue(id uint64, path string) nft.Value {
	return nft.Value{Type: nft.TypeCgroup, Num: id, Text: strings.TrimPrefix(path, "/")}
}

func identityValue(id uint32) nft.Value {
	return nft.Value{Type: nft.TypeClassID, Num: uint64(id)}
}

// maps makes the maps that lead from cgroups to identities and policies, and
// the sets of the instances of templates that rules name.
func (a *assembly) maps(spaces []*space) {
	place := make(map[string]int) // of a set in the table
	members := make(map[int]int)  // by level
	for _, s := range spaces {
		for _, m := range s.members {
			members[m.Level]++
		}
	}
	a.templates = slices.ContainsFunc(spaces, func(s *space) bool { return s.source.Each != "" })
	room := func(n int) []nft.Element { return make([]nft.Element, 0, n) }
	add := func(s nft.Set) {
		place[s.Name] = len(a.table.Sets)
		a.table.Sets = append(a.table.Sets, s)
	}
	cgroups, pairs := []nft.Type{nft.TypeCgroup}, []nft.Type{nft.TypeClassID, nft.TypeCgroup}
	for _, level := range a.deep {
		add(nft.Set{Name: identityMap(level), Key: cgroups, Data: nft.TypeClassID, Elements: room(members[level])})
		add(nft.Set{Name: classMap(level), Key: cgroups, Data: nft.TypeMark, Elements: room(members[level])})
		add(nft.Set{Name: selfSet(level), Key: pairs, Linger: true, Elements: room(members[level])})
	}
	for _, set := range a.classSets(spaces) {
		add(set)
	}
	add(nft.Set{Name: namespacesMap, Key: []nft.Type{nft.TypeClassID}, Data: nft.TypeVerdict, Linger: true, Elements: room(len(spaces)),
		Comment: "the connecting end's policy, by the identity that the packet carries over lo"})
	if a.templates {
		add(nft.Set{Name: templatesMap, Key: []nft.Type{nft.TypeClassID}, Data: nft.TypeVerdict, Linger: true,
			Comment: "the same for the instances of templates, by what their identities begin with"})
	}
	for _, set := range a.reportSets() {
		add(set)
	}
	put := func(list ...Placed) {
		for _, p := range list {
			s := &a.table.Sets[place[p.Set]]
			s.Elements = append(s.Elements, p.Element)
		}
	}
	note := func(set string, m Missing) {
		s := &a.table.Sets[place[set]]
		s.Notes = append(s.Notes, fmt.Sprintf("%s: %s does not exist", m.Namespace, m.Member))
	}
	for _, s := range spaces {
		put(a.index.Namespace(s.name)...)
		for _, m := range s.members {
			put(a.index.Member(m)...)
		}
		for _, m := range s.missing {
			if m.Member.Cgroup != "" {
				note(identityMap(strings.Count(m.Member.Cgroup, "/")), m)
			} else {
				note(namespacesMap, m)
			}
		}
	}
}

// classSets makes the maps that lead from the classes of policies to their lists.
func (a *assembly) classSets(spaces []*space) []nft.Set {
	policies := len(distinct(a.policies))
	sets := []nft.Set{
		{Name: connectsMap, Comment: "from the class of a policy to its connect list"},
		{Name: acceptsMap(tcpOnly), Comment: "to its accept list for TCP"},
		{Name: acceptsMap(udpOnly), Comment: "and for UDP"},
		{Name: selvesMap, Comment: "to what it says of packets from one of its sockets to another"},
	}
	for i := range sets {
		sets[i].Key, sets[i].Data, sets[i].Linger = []nft.Type{nft.TypeMark}, nft.TypeVerdict, true
		sets[i].Elements = make([]nft.Element, 0, policies)
	}
	seen := make(map[string]bool)
	room := make([]nft.Value, 0, len(spaces)) // for keys
	for _, s := range spaces {
		ref, free := a.index.policies[s.source.Name], a.policies[s.source.Name].selfFree
		if seen[ref.name] {
			continue
		}
		seen[ref.name] = true
		self := ref.chain(partSelf)
		if free {
			self = chainDone
		}
		room = append(room, markValue(ref.class))
		key := room[len(room)-1 : len(room) : len(room)] // nobody writes to keys
		for i, chain := range [...]string{ref.chain(partConnect), ref.accept(tcpOnly), ref.accept(udpOnly), self} {
			sets[i].Elements = append(sets[i].Elements, nft.Element{Key: key, Verdict: jumpTo(nft.VerdictGoto, chain)})
		}
	}
	return sets
}

// eachSetMatch visits the matches of sets that policies have.
func eachSetMatch(policies map[string]*chains, visit func(nft.Statement)) {
	for c := range distinct(policies) {
		for _, s := range c.asks {
			visit(s)
		}
	}
}

// doorsOf returns the doors that an enforcing template of this device
// namespace keeps.
func (a *assembly) doorsOf(spaces []*space, f Facts) []Door {
	enforced := make(map[string]bool)
	for _, s := range spaces {
		enforced[s.name] = s.source.Each != "" && s.source.Mode != model.Audit
	}
	var doors []Door
	levels := make(map[int]bool)
	for _, d := range f.Doors {
		if d.Device != a.device || !slices.ContainsFunc(d.Templates, func(t string) bool { return enforced[t] }) {
			continue
		}
		doors = append(doors, d)
		levels[d.Level] = true
	}
	for l := range levels {
		a.doors = append(a.doors, l)
	}
	sort.Sort(sort.Reverse(sort.IntSlice(a.doors)))
	return doors
}

// doorSets makes the maps of doors and the sets of their children that are
// known to be nobody's.
func (a *assembly) doorSets(doors []Door) {
	for _, level := range a.doors {
		door := nft.Set{Name: doorMap(level), Key: []nft.Type{nft.TypeCgroup}, Data: nft.TypeVerdict,
			Comment: "cgroups whose unknown children are held"}
		exempt := nft.Set{Name: unmanagedSet(level + 1), Key: []nft.Type{nft.TypeCgroup},
			Comment: "children of those that nobody claims"}
		for _, d := range doors {
			if d.Level != level {
				continue
			}
			door.Elements = append(door.Elements, nft.Element{
				Key:     []nft.Value{cgroupValue(d.ID, d.Path)},
				Verdict: jumpTo(nft.VerdictJump, heldChain(level+1)),
				Comment: fit(d.Path, commentMax),
			})
			for _, m := range d.Exempt {
				exempt.Elements = append(exempt.Elements, a.index.Exempt(m).Element)
			}
		}
		a.table.Sets = append(a.table.Sets, door, exempt)
		a.chain(heldChain(level+1), "a socket of a cgroup that the kernel was not told of yet",
			nft.Rule{Statements: []nft.Statement{
				nft.MatchSet{Key: cgroupKey(level + 1), Not: true, Set: unmanagedSet(level + 1)},
				nft.Counter{},
				nft.Verdict{Kind: nft.VerdictDrop},
			}})
	}
}

// sharedSets makes the sets that packets and policies of all namespaces share.
func (a *assembly) sharedSets(policies map[string]*chains) {
	same := false // some policy compares an address with another
	eachSetMatch(policies, func(s nft.Statement) {
		m, ok := s.(nft.MatchSet)
		same = same || ok && m.Set == sameSet4
	})
	for _, f := range families {
		a.table.Sets = append(a.table.Sets, nft.Set{
			Name:    answersSet(f.number, a.policy.UDPTimeout),
			Key:     []nft.Type{f.address, nft.TypeInetService, f.address, nft.TypeInetService},
			Dynamic: true,
			Timeout: a.policy.UDPTimeout,
			Size:    answersSize,
			Comment: "source and destination of datagrams that answer one that passed",
		})
		if !same {
			continue
		}
		pairs := nft.Set{Name: f.same, Key: []nft.Type{f.address, f.address},
			Comment: "the local addresses, twice: who binds nothing and connects to one has it too"}
		for _, addr := range a.localAddresses() {
			if addr.Is4() == (f.number == 4) {
				v := nft.Value{Type: f.address, Addr: addr}
				pairs.Elements = append(pairs.Elements, nft.Element{Key: []nft.Value{v, v}})
			}
		}
		a.table.Sets = append(a.table.Sets, pairs)
	}
	a.table.Sets = append(a.table.Sets, keptSet)
}

// localAddresses returns those that the device namespace has, and the single
// ones that the policy gives to its socket namespaces.
func (a *assembly) localAddresses() []netip.Addr {
	seen := make(map[netip.Addr]bool)
	var addrs []netip.Addr
	add := func(addr netip.Addr) {
		if addr = addr.Unmap().WithZone(""); !seen[addr] {
			seen[addr] = true
			addrs = append(addrs, addr)
		}
	}
	for _, addr := range a.facts.Addresses {
		add(addr)
	}
	for i := range a.policy.SocketNamespaces {
		n := &a.policy.SocketNamespaces[i]
		if n.Device != a.device {
			continue
		}
		for _, r := range n.Addresses {
			if r.First == r.Last {
				add(r.First)
			}
		}
	}
	sort.Slice(addrs, func(i, j int) bool { return addrs[i].Less(addrs[j]) })
	return addrs
}

var families = [...]struct {
	number       int
	address      nft.Type
	source, dest nft.FieldKind
	same         string
}{
	{4, nft.TypeIPv4, nft.FieldSource4, nft.FieldDest4, sameSet4},
	{6, nft.TypeIPv6, nft.FieldSource6, nft.FieldDest6, sameSet6},
}

func (a *assembly) chain(name, comment string, rules ...nft.Rule) {
	a.table.Chains = append(a.table.Chains, nft.Chain{Name: name, Comment: comment, Rules: rules})
}

func ruleOf(statements ...nft.Statement) nft.Rule { return nft.Rule{Statements: statements} }

var accept = nft.Verdict{Kind: nft.VerdictAccept}

// endings makes the chains that policies end in.
func (a *assembly) endings() {
	var answers, kept, remember []nft.Rule
	for _, f := range families {
		set := answersSet(f.number, a.policy.UDPTimeout)
		answer := nft.MatchSet{Set: set, Key: []nft.Field{
			{Kind: f.source}, {Kind: nft.FieldSport}, {Kind: f.dest}, {Kind: nft.FieldDport}}}
		answers = append(answers, ruleOf(answer, noMark, nft.SetMark{}, accept))
		kept = append(kept, ruleOf(answer, markBack, accept))
		remember = append(remember, ruleOf(nft.Update{Set: set, Key: []nft.Field{
			{Kind: f.dest}, {Kind: nft.FieldDport}, {Kind: f.source}, {Kind: nft.FieldSport}}}, accept))
	}
	answers = slices.Concat(answers, []nft.Rule{ruleOf(noMark, nft.Verdict{Kind: nft.VerdictReturn})}, kept)
	remember = append(remember, ruleOf(accept))
	sender := a.sender()
	a.chain(chainAnswers, "a datagram that answers one that passed", answers...)
	a.chain(chainDone, "allowed; the mark is what it was",
		ruleOf(noMark, nft.SetMark{}, accept), ruleOf(markBack, accept), ruleOf(accept))
	udp, keptUDP := udpOnly.suffix(), chainAdmit+udpOnly.suffix()+".marked"
	a.chain(keptUDP, "", append([]nft.Rule{ruleOf(markBack)}, remember...)...)
	// The first of the rules that remember takes the mark away from all.
	first := ruleOf(append([]nft.Statement{nft.SetMark{}}, remember[0].Statements...)...)
	forget := append([]nft.Rule{ruleOf(hasKept, jumpTo(nft.VerdictGoto, keptUDP)), first}, remember[1:]...)
	a.chain(chainPass, "allowed; the answer to a datagram may come back", append([]nft.Rule{ // as deep as chains get
		ruleOf(noMark, nft.SetMark{}), ruleOf(anyMark, markBack),
		ruleOf(nft.MatchMeta{Key: nft.MetaL4Proto, Not: true, Value: protoUDP}, accept)}, remember...)...)
	a.chain(chainAdmit, "the accepting end allows", sender, ruleOf(jumpTo(nft.VerdictGoto, chainPass)))
	a.chain(chainAdmit+tcpOnly.suffix(), "", sender, ruleOf(jumpTo(nft.VerdictGoto, chainDone)))
	a.chain(chainAdmit+udp, "", append([]nft.Rule{sender}, forget...)...)
	// In each policy it would be bound to the map thousands of times, and the
	// kernel walks the list of a map's rules for each that is added (nf_tables_bind_set).
	if len(a.deep) > 0 {
		a.chain(chainSame, "both ends in one namespace: by its own rules", sameRule(a.deep[0]))
	}
	a.chain(chainWhose, "the priority becomes the identity of the socket that sends (in output) or receives (in input)", a.whose()...)
}

// whose returns the rules of chainWhose.
func (a *assembly) whose() []nft.Rule {
	rules := []nft.Rule{ruleOf(nft.SetPriority{Value: unmanagedIdentity})}
	for i := len(a.deep) - 1; i >= 0; i-- {
		rules = append(rules, ruleOf(nft.SetPriorityMap{Key: cgroupKey(a.deep[i]), Map: identityMap(a.deep[i])}))
	}
	return rules
}

var tcpOpened = nft.MatchTCPFlags{Mask: tcpFIN | tcpSYN | tcpRST | tcpACK, Value: tcpSYN, Not: true}

// outputChains makes the base chain of output and what it leads to.
func (a *assembly) outputChains() {
	leave := slices.Concat([]nft.Rule{ruleOf(anyMark, jumpTo(nft.VerdictGoto, chainLeaveMarked))}, a.policyRules(lead{to: connectsMap}))
	marked := slices.Concat(keepMark(), a.policyRules(lead{to: connectsMap, kept: true}))
	var mark []nft.Rule
	for _, l := range a.deep {
		mark = append(mark, ruleOf(nft.SetPriorityMap{Key: cgroupKey(l), Map: identityMap(l)}, accept))
	}
	mark = append(mark, ruleOf(nft.SetPriority{Value: unmanagedIdentity}))
	for _, l := range a.doors {
		held := ruleOf(nft.VMap{Key: cgroupKey(l), Map: doorMap(l)})
		leave, marked, mark = append(leave, held), append(marked, held), append(mark, held)
	}
	a.chain(chainLeave, "sent, not through lo: by whom?", append(leave, ruleOf(accept))...)
	a.chain(chainLeaveMarked, "the same for packets that have a mark",
		append(marked, ruleOf(nft.SetMark{Value: markKept}, jumpTo(nft.VerdictGoto, chainDone)))...)
	a.chain(chainMark, "sent through lo: tell the receiving end by whom", append(mark, ruleOf(accept))...)
	a.chain(chainOther, "pings and SCTP are decided on the packet that begins them, UDP-Lite on each; the kernel's own ICMP passes",
		ruleOf(protocolTerm(protoTCP)[0], nft.Verdict{Kind: nft.VerdictReturn}),
		ruleOf(nft.MatchICMP{First: icmpEchoRequest, Last: icmpEchoRequest}, jumpTo(nft.VerdictGoto, chainLeave)),
		ruleOf(nft.MatchICMP{V6: true, First: icmpv6EchoRequest, Last: icmpv6EchoRequest}, jumpTo(nft.VerdictGoto, chainLeave)),
		ruleOf(protocolTerm(protoICMP)[0], accept),
		ruleOf(protocolTerm(protoICMPv6)[0], accept),
		ruleOf(protocolTerm(protoUDPLite)[0], jumpTo(nft.VerdictGoto, chainLeave)),
		// True of each packet that is not SCTP, too (nft_exthdr_sctp_eval).
		ruleOf(nft.MatchSCTPInit{Present: false}, accept),
		ruleOf(jumpTo(nft.VerdictGoto, chainLeave)))
	a.table.Chains = append(a.table.Chains, nft.Chain{Name: chainOutput, Base: &nft.Base{Hook: nft.HookOutput}, Rules: []nft.Rule{
		{Statements: []nft.Statement{tcpOpened, accept}, Comment: "a connection that exists"},
		ruleOf(nft.MatchMeta{Key: nft.MetaOIF, Value: nft.Loopback}, protocolTerm(protoUDP)[0], jumpTo(nft.VerdictGoto, chainMark)),
		ruleOf(nft.MatchMeta{Key: nft.MetaL4Proto, Not: true, Value: protoUDP}, jumpTo(nft.VerdictJump, chainOther)),
		ruleOf(nft.MatchMeta{Key: nft.MetaOIF, Value: nft.Loopback}, jumpTo(nft.VerdictGoto, chainMark)),
		ruleOf(jumpTo(nft.VerdictGoto, chainLeave)),
	}})
}

// inputChains makes the base chain of input and what it leads to.
func (a *assembly) inputChains() {
	elsewhere := nft.MatchMeta{Key: nft.MetaIIF, Not: true, Value: nft.Loopback}
	remote := func(term ...nft.Statement) []nft.Rule { // the priority of what was not sent through lo
		return []nft.Rule{
			ruleOf(append(term, nft.SetPriority{Value: remoteIdentity})...),
			ruleOf(append(term, nft.MatchMeta{Key: nft.MetaPktType, Value: pktLoopback}, nft.SetPriority{Value: loopedIdentity})...),
		}
	}
	held := make([]nft.Rule, len(a.doors))
	for i, l := range a.doors {
		held[i] = ruleOf(nft.VMap{Key: cgroupKey(l), Map: doorMap(l)})
	}
	answer := ruleOf(protocolTerm(protoUDP)[0], jumpTo(nft.VerdictJump, chainAnswers))
	fromUnmanaged := nft.MatchMeta{Key: nft.MetaPriority, Value: unmanagedIdentity}
	done := jumpTo(nft.VerdictGoto, chainDone)
	for _, t := range []transports{tcpOnly, udpOnly} {
		way := lead{to: acceptsMap(t)}
		a.chain(chainArrived+t.suffix(), "for whom?", slices.Concat(remote(), a.policyRules(way), held, []nft.Rule{ruleOf(accept)})...)
		way.ask = sameRule
		near := slices.Concat(a.policyRules(way), held, []nft.Rule{ruleOf(fromUnmanaged, accept)})
		if t.udp {
			near = append(near, ruleOf(jumpTo(nft.VerdictJump, chainAnswers)))
		}
		a.chain(chainNear+t.suffix(), "from lo: the priority says who sent it", append(near, ruleOf(jumpTo(nft.VerdictGoto, chainAdmit+t.suffix())))...)
	}
	// One chain and not one for each: from another they would be too deep.
	a.chain(chainMarked, "all of these for packets that have a mark", slices.Concat(
		[]nft.Rule{ruleOf(nft.MatchMeta{Key: nft.MetaL4Proto, Not: true, Value: protoTCP}, nft.MatchMeta{Key: nft.MetaL4Proto, Not: true, Value: protoUDP}, accept)},
		keepMark(), remote(elsewhere),
		a.policyRules(lead{to: acceptsMap(tcpOnly), only: protocolTerm(protoTCP), kept: true, ask: sameRule}),
		a.policyRules(lead{to: acceptsMap(udpOnly), only: protocolTerm(protoUDP), kept: true, ask: sameRule}),
		held, []nft.Rule{
			ruleOf(nft.SetMark{Value: markKept}), ruleOf(elsewhere, done), ruleOf(fromUnmanaged, done),
			answer, ruleOf(jumpTo(nft.VerdictGoto, chainAdmit))})...)
	a.table.Chains = append(a.table.Chains, nft.Chain{Name: chainInput, Base: &nft.Base{Hook: nft.HookInput}, Rules: []nft.Rule{
		{Statements: []nft.Statement{tcpOpened, accept}, Comment: "a connection that exists"},
		ruleOf(anyMark, jumpTo(nft.VerdictGoto, chainMarked)),
		ruleOf(nft.MatchMeta{Key: nft.MetaIIF, Value: nft.Loopback}, protocolTerm(protoUDP)[0], jumpTo(nft.VerdictGoto, chainNear+udpOnly.suffix())),
		ruleOf(nft.MatchMeta{Key: nft.MetaIIF, Value: nft.Loopback}, protocolTerm(protoTCP)[0], jumpTo(nft.VerdictGoto, chainNear+tcpOnly.suffix())),
		ruleOf(protocolTerm(protoTCP)[0], jumpTo(nft.VerdictGoto, chainArrived+tcpOnly.suffix())),
		ruleOf(protocolTerm(protoUDP)[0], jumpTo(nft.VerdictGoto, chainArrived+udpOnly.suffix())),
	}})
}
