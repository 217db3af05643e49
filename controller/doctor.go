package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/cgroup"
	"github.com/sockns/sockns/device"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
	"github.com/sockns/sockns/sockdiag"
	"github.com/sockns/sockns/syscalls"
)

// Feature is something that the kernel can do for sockns, or not.
type Feature struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"` // nothing can be enforced without
	Detail   string `json:"detail,omitempty"`
	Without  string `json:"without"` // what its absence costs
}

// Gap is a way around the hooks that no kernel closes.
type Gap struct {
	Name     string `json:"name"`
	ClosedBy string `json:"closedBy"` // who closes it, or what helps
}

// Examine asks the kernel for each feature that sockns uses, by using it in a
// network namespace of its own that is gone afterwards.
func Examine() []Feature {
	list := []Feature{privilege(), cgroups(), cookie()}
	err := inThrowawayNetns(func(ns *device.Namespace) error {
		conn, err := nft.Open(ns.NetNS())
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, p := range probes {
			f := p.feature
			f.OK, f.Detail = outcome(probe(conn, p))
			list = append(list, f)
		}
		list = append(list, destroy(ns))
		return nil
	})
	if err != nil {
		// Not being allowed to look says nothing of what is there.
		list = append(list, Feature{Name: "a network namespace to try nftables in", Required: !errors.Is(err, fs.ErrPermission), Detail: err.Error(),
			Without: "the features of nftables are not examined: run it as root (CAP_SYS_ADMIN)"})
	}
	return append(list, calls())
}

// calls asks for the syscall tier.
func calls() Feature {
	f := Feature{
		Name:    "bind(2), connect(2) and sendto(2) answered by the kernel itself (cgroup-BPF, Linux 5.18)",
		Without: "a bind that the policy refuses succeeds, and its socket is inert; a wildcard bind stays one; see docs/errors.md for the errors that applications see",
	}
	support := syscalls.Probe()
	defer support.Close()
	f.OK, f.Detail = support.OK(), support.Why
	switch support.Variant {
	case syscalls.Cast:
		f.Detail = "variant cast: sockets of any age, and TCP listeners are steered"
	case syscalls.Stamp:
		f.Detail = "variant stamp: only sockets that are made after the programs are installed; listeners are not steered"
	}
	return f
}

// Gaps are the ways around bind(2) and connect(2) that the cgroup-BPF programs
// do not see; docs/limits.md has more.
var Gaps = []Gap{
	{"listen(2) without bind(2), and datagrams of a socket that was never bound (the kernel binds it by itself)", "nftables"},
	{"sockets that were bound before the policy", "nftables: they are inert"},
	{"ping sockets (SOCK_DGRAM, IPPROTO_ICMP)", "nftables, by connect rules"},
	{"raw sockets and AF_PACKET", "nothing: deny CAP_NET_RAW"},
	{"AF_VSOCK, AF_NETLINK, AF_UNIX and other families without IP", "nothing: see RestrictAddressFamilies= in systemd.exec(5)"},
	{"another program in the same or a higher cgroup that overrules (bpf_set_retval)", "nftables"},
}

func outcome(err error) (bool, string) {
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}

// privilege asks for CAP_NET_ADMIN; what else is missing shows where it is used.
func privilege() Feature {
	f := Feature{Name: "privilege (CAP_NET_ADMIN)", Required: true, Without: "tables can't be read or changed: run as root, or with CAP_NET_ADMIN"}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		f.Detail = err.Error()
		return f
	}
	f.OK = sets[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
	f.Detail = fmt.Sprintf("effective user id %d", os.Geteuid())
	return f
}

func cgroups() Feature {
	f := Feature{Name: "cgroup v2", Required: true, Without: "no socket can be told to be in a socket namespace"}
	tree, err := cgroup.Find()
	if f.OK, f.Detail = outcome(err); err == nil {
		f.Detail = "mounted at " + tree.Mount()
	}
	return f
}

func cookie() Feature {
	f := Feature{Name: "network namespace cookies (Linux 5.14)",
		Without: "two sockns in two network namespaces can't tell each other's tables apart"}
	ns, err := device.Open(model.DeviceNamespace{Name: model.HostDevice})
	if err == nil {
		defer ns.Close()
		if ns.Identity().Cookie == 0 {
			err = errors.New("SO_NETNS_COOKIE is not there")
		}
	}
	f.OK, f.Detail = outcome(err)
	return f
}

// destroy asks to close a socket that does not exist.
func destroy(ns *device.Namespace) Feature {
	f := Feature{Name: "closing sockets (CONFIG_INET_DIAG_DESTROY)", Without: "apply --revoke can't close connections"}
	conn, err := sockdiag.Dial(ns.NetNS())
	if err == nil {
		defer conn.Close()
		local := netip.MustParseAddrPort("127.0.0.1:1")
		err = conn.Destroy(sockdiag.Socket{Protocol: sockdiag.TCP, Family: unix.AF_INET, Local: local, Remote: local})
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	f.OK, f.Detail = outcome(err)
	return f
}

// inThrowawayNetns runs fn with a network namespace that nobody else has.
func inThrowawayNetns(fn func(*device.Namespace) error) error {
	result := make(chan error, 1)
	go func() {
		// The thread stays locked: it ends with the goroutine, and the
		// namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		ns, err := device.Open(model.DeviceNamespace{Name: "throwaway"})
		if err != nil {
			result <- err
			return
		}
		defer ns.Close()
		result <- fn(ns)
	}()
	return <-result
}

// kernelProbe is a table that only a kernel with the feature accepts.
type kernelProbe struct {
	feature Feature
	sets    []nft.Set
	rule    []nft.Statement
	hook    nft.Hook
}

func probe(conn *nft.Conn, p kernelProbe) error {
	t := &nft.Table{Name: "sockns_probe", Sets: p.sets, Chains: []nft.Chain{{
		Name: "probe", Base: &nft.Base{Hook: p.hook}, Rules: []nft.Rule{{Statements: p.rule}},
	}}}
	for _, change := range []nft.Transaction{nft.Diff(nil, t), nft.Diff(t, nil)} {
		for _, b := range []nft.Batch{change.Add, change.Switch, change.Clean} {
			if b.Empty() {
				continue
			}
			if err := conn.Commit(b); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	verdictMap = nft.Set{Name: "m", Key: []nft.Type{nft.TypeCgroup}, Data: nft.TypeVerdict}
	pairMap    = nft.Set{Name: "m", Key: []nft.Type{nft.TypeClassID, nft.TypeCgroup}, Data: nft.TypeVerdict}
	numberMap  = nft.Set{Name: "m", Key: []nft.Type{nft.TypeCgroup}, Data: nft.TypeClassID}
	answers    = nft.Set{Name: "m", Key: []nft.Type{nft.TypeIPv4, nft.TypeInetService}, Dynamic: true, Timeout: time.Second, Size: 16}
	byCgroup   = []nft.Field{{Kind: nft.FieldCgroup, Level: 1}}
	byPriority = nft.Field{Kind: nft.FieldPriority}
)

var probes = []kernelProbe{
	{
		feature: Feature{Name: "socket cgroupv2 in output (nft_socket, Linux 5.13)", Required: true, Without: "no packet can be told to be of a socket namespace"},
		sets:    []nft.Set{verdictMap}, rule: []nft.Statement{nft.VMap{Key: byCgroup, Map: "m"}}, hook: nft.HookOutput,
	},
	{
		feature: Feature{Name: "socket cgroupv2 in input", Required: true, Without: "accept rules can't be enforced"},
		sets:    []nft.Set{verdictMap}, rule: []nft.Statement{nft.VMap{Key: byCgroup, Map: "m"}}, hook: nft.HookInput,
	},
	{
		feature: Feature{Name: "the sender's identity over lo (meta priority in maps)", Required: true, Without: "namespaces of one device namespace can't recognise each other"},
		sets:    []nft.Set{pairMap}, rule: []nft.Statement{nft.VMap{Key: []nft.Field{byPriority, byCgroup[0]}, Map: "m"}}, hook: nft.HookInput,
	},
	{
		feature: Feature{Name: "priorities from maps", Required: true, Without: "namespaces of one device namespace can't recognise each other"},
		sets:    []nft.Set{numberMap}, rule: []nft.Statement{nft.SetPriorityMap{Key: byCgroup, Map: "m"}}, hook: nft.HookOutput,
	},
	{
		feature: Feature{Name: "sets filled by packets, with a timeout", Required: true, Without: "answers to datagrams can't be allowed"},
		sets:    []nft.Set{answers}, rule: []nft.Statement{nft.Update{Set: "m", Key: []nft.Field{{Kind: nft.FieldSource4}, {Kind: nft.FieldSport}}}}, hook: nft.HookInput,
	},
	{
		feature: Feature{Name: "reject (nft_reject_inet)", Required: true, Without: "applications see silence instead of an error"},
		rule:    []nft.Statement{nft.Reject{ICMPX: nft.ICMPXHostUnreachable}}, hook: nft.HookInput,
	},
	{
		feature: Feature{Name: "SCTP chunks (Linux 5.14)", Required: true, Without: "the packet that opens an association can't be told from others"},
		rule:    []nft.Statement{nft.MatchSCTPInit{Present: true}}, hook: nft.HookOutput,
	},
	{
		feature: Feature{Name: "log (nft_log)", Required: true, Without: "audit mode and log: true can't write to the kernel's log"},
		rule:    []nft.Statement{nft.Limit{Rate: 1, Burst: 5}, nft.Log{Prefix: "sockns"}}, hook: nft.HookInput,
	},
}
