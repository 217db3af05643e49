package conform

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/model"
)

// found are faults that random flows have found, each with the least policy
// and a flow that shows it. A listener is in cgroup d where the flow goes.
var found = []struct {
	name, policy string
	calls        bool // with the syscall tier
	flow         Flow
	want         string
}{
	{
		"UDP-Lite was taken for SCTP without INIT, and passed", `
  a: {members: [{cgroup: $CG/a}]}`, false,
		Flow{Protocol: model.UDPLite, Cgroup: "a", To: netip.MustParseAddrPort("10.0.0.6:100"), ToDevice: 1},
		"EPERM",
	},
	{
		"within a namespace, the accepting socket's bind was asked before connect", `
  a:
    members: [{cgroup: $CG/a}, {cgroup: $CG/d}]
    bind: [{ports: 1}]
    connect: [{action: deny, error: ENETUNREACH, to: self}]`, false,
		Flow{Protocol: model.TCP, Cgroup: "a", To: netip.MustParseAddrPort("10.0.0.2:101")},
		"ENETUNREACH",
	},
	{
		"a cgroup below was claimed in another device namespace, and calls took it for nobody's", `
  a: {members: [{cgroup: $CG/a}], addresses: 10.0.0.3}
  b: {members: [{cgroup: $CG/a/b}], deviceNamespace: dev0}`, true,
		Flow{Protocol: model.TCP, Cgroup: "a/b", Bind: netip.MustParseAddrPort("10.0.0.2:102")},
		"EADDRNOTAVAIL",
	},
	{
		"::/0 was taken for all addresses of IPv4 as well, where calls decide", `
  a: {members: [{cgroup: $CG/a}], connect: [{action: deny, error: EACCES, to: '::/0'}, {to: any}]}`, true,
		Flow{Protocol: model.TCP, Cgroup: "a", To: netip.MustParseAddrPort("10.0.0.2:103")},
		"d",
	},
	{
		"::/0 was taken for the wildcard of a bind, where calls decide", `
  a: {members: [{cgroup: $CG/a}], bind: [{local: '::/0'}]}`, true,
		Flow{Protocol: model.TCP, Cgroup: "a", Bind: netip.MustParseAddrPort("0.0.0.0:104")},
		"EACCES",
	},
	{
		"a datagram was sent from the namespace's own address though it is not there", `
  a: {members: [{cgroup: $CG/a}], addresses: 10.0.0.12, connect: [{to: any}]}`, true,
		Flow{Protocol: model.UDP, Cgroup: "a", SendTo: true, To: netip.MustParseAddrPort("10.0.0.2:105")},
		"d",
	},
	{
		"calls took 127.0.0.3 for the source of what goes there; it is 127.0.0.1", `
  a: {members: [{cgroup: $CG/a}], connect: [{action: deny, error: EACCES, local: 127.0.0.1}, {to: any}]}`, true,
		Flow{Protocol: model.TCP, Cgroup: "a", To: netip.MustParseAddrPort("127.0.0.3:106")},
		"EACCES",
	},
}

// foundWorld has a listener for each fault.
func foundWorld() *World {
	w := &World{Devices: devices(), at: make(map[listenerKey]int)}
	for _, f := range found {
		if !f.flow.OnlyBinds() && visible(f.flow.Protocol) {
			w.add(Listener{Device: f.flow.ToDevice, Cgroup: "d", Protocol: f.flow.Protocol, Address: f.flow.To})
		}
	}
	return w
}

func foundPolicy(text string) string {
	return "apiVersion: sockns/v1\ndeviceNamespaces: {dev0: {path: $NS_dev0}}\nsocketNamespaces:" + text + "\n"
}

func TestFoundBefore(t *testing.T) {
	w := foundWorld()
	for _, f := range found {
		t.Run(f.name, func(t *testing.T) {
			p, err := w.Parse(foundPolicy(f.policy))
			if err != nil {
				t.Fatal(err)
			}
			j := &Judge{World: w, Policy: p, Calls: f.calls}
			if want := j.Seen(f.flow).Outcomes; !slices.Equal(want, []string{f.want}) {
				t.Errorf("the policy says %s, want %s", want, f.want)
			}
			if got := w.Applications(p, f.calls).Try(f.flow); got != f.want {
				t.Errorf("%s: %s, want %s", f.flow, got, f.want)
			}
		})
	}
}

func TestFoundBeforeOnKernel(t *testing.T) {
	roottest.Need(t)
	for _, calls := range []bool{false, true} {
		onMachine(t, foundWorld(), calls, func(m *Machine) {
			for _, f := range found {
				if f.calls != calls || !visible(f.flow.Protocol) {
					continue
				}
				if err := m.Apply(foundPolicy(f.policy)); err != nil {
					t.Errorf("%s: %v", f.name, err)
					continue
				}
				if got, err := m.Try([]Flow{f.flow}, func(int) bool { return false }); err != nil || got[0] != f.want {
					t.Errorf("%s: %s: %s, want %s (%v)", f.name, f.flow, got, f.want, err)
				}
			}
		})
	}
}

// TestOwnListenerIsInTheWay asks twice for the address of a namespace's own
// listener. Under the second policy it was taken for one that another
// namespace had asked for shortly before.
func TestOwnListenerIsInTheWay(t *testing.T) {
	roottest.Need(t)
	flow := Flow{Protocol: model.TCP, Cgroup: "d", Bind: netip.MustParseAddrPort("127.0.0.1:107")}
	w := &World{Devices: devices(), at: make(map[listenerKey]int)}
	w.add(Listener{Cgroup: flow.Cgroup, Protocol: flow.Protocol, Address: flow.Bind})
	onMachine(t, w, true, func(m *Machine) {
		for _, name := range []string{"a", "b"} {
			if err := m.Apply(foundPolicy("\n  " + name + ": {members: [{cgroup: $CG/d}]}")); err != nil {
				t.Error(err)
			}
			if got, err := m.Try([]Flow{flow}, func(int) bool { return false }); err != nil || got[0] != "EADDRINUSE" {
				t.Errorf("%s: %v %v", name, got, err)
			}
		}
	})
}

// onMachine does something with a machine, on a thread that ends with it.
func onMachine(t *testing.T, w *World, calls bool, do func(*Machine)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		m, err := OpenMachine(w, calls)
		if err != nil {
			t.Error(err)
			return
		}
		do(m)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-done
}
