package conform

import (
	"net/netip"
	"testing"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
)

// found are faults that random policies have found, each with the least policy
// and a flow that shows it.
var found = []struct {
	name, policy string
	flow         Flow
	want         string
}{
	{
		"UDP-Lite was taken for SCTP without INIT, and passed", `
  a: {members: [{cgroup: $CG/a}]}`,
		Flow{Protocol: model.UDPLite, Cgroup: "a", To: netip.MustParseAddrPort("10.0.0.6:100"), ToDevice: 1},
		"EPERM",
	},
	{
		"within a namespace, the accepting socket's bind was asked before connect", `
  a:
    members: [{cgroup: $CG/a}, {cgroup: $CG/d}, {cgroup: $CG/g}, {cgroup: $CG/free}]
    bind: [{ports: 1}]
    connect: [{action: deny, error: ENETUNREACH, to: self}]`,
		Flow{Protocol: model.TCP, Cgroup: "a", To: netip.MustParseAddrPort("10.0.0.2:100")},
		"ENETUNREACH",
	},
}

func TestFoundBefore(t *testing.T) {
	for _, f := range found {
		t.Run(f.name, func(t *testing.T) {
			w := &World{Devices: devices(), at: make(map[listenerKey]int)}
			w.add(Listener{f.flow.ToDevice, "d", f.flow.Protocol, f.flow.To})
			p, err := w.Parse("apiVersion: sockns/v1\nsocketNamespaces:" + f.policy)
			if err != nil {
				t.Fatal(err)
			}
			j := &Judge{World: w, Policy: p}
			if want := j.Packets(f.flow).Outcomes[0]; want != f.want {
				t.Errorf("the policy says %s, want %s", want, f.want)
			}
			if got := w.Simulate(compiler.Compile(p, w.Facts(p, false))).Connect(f.flow, j.Source(f.flow)); got != f.want {
				t.Errorf("%s: %s, want %s", f.flow, got, f.want)
			}
		})
	}
}
