package learn

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/model/modeltest/golden"
)

// TestGolden patches the policy of each archive by its flows. The comment has
// the options: a word each.
func TestGolden(t *testing.T) {
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, a *txtar.Archive) []txtar.File {
		options := strings.Fields(strings.Split(string(a.Comment), "\n")[0])
		o := Options{
			EphemeralPorts: DefaultEphemeralPorts,
			Prefixes:       slices.Contains(options, "prefixes"), WholeEphemeral: slices.Contains(options, "ephemeral"),
		}
		policy := model.File{Name: "policy.yaml", Data: a.Files[0].Data}
		return golden.Last(a, learned(policy, a.Files[1].Data, o, slices.Contains(options, "enforce")))
	})
}

func learned(policy model.File, lines []byte, o Options, enforce bool) string {
	p, diags := model.Parse([]model.File{policy})
	if diags.HasErrors() {
		return fmt.Sprint(diags)
	}
	c := Collection{Namespace: "web"}
	if err := c.Read(bytes.NewReader(lines)); err != nil {
		return "error: " + err.Error() + "\n"
	}
	l, err := Rules(p, "web", c.Flows(), o)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	patched, err := l.Patch([]model.File{policy}, enforce)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	out := string(patched.Data)
	if c.Untold+c.Shared > 0 {
		out += fmt.Sprintf("untold %d, shared %d\n", c.Untold, c.Shared)
	}
	for _, r := range l.Refused {
		out += fmt.Sprintf("refused by %s: %s\n", r.Rule.Pos, r.Flow)
	}
	for _, f := range l.Answers {
		out += fmt.Sprintf("answer: %s\n", f)
	}
	return out
}

// drawFlows draws traffic of a namespace, as the model's flows.
func drawFlows(t *rapid.T, p *model.Policy, n *model.SocketNamespace) []Flow {
	name := n.Name
	if n.Each != "" {
		name += "/1"
	}
	var flows []Flow
	draw := modeltest.Flow(p)
	for range rapid.IntRange(1, 25).Draw(t, "count") {
		m := draw.Draw(t, "flow")
		f := Flow{
			Namespace: name, Hook: rapid.SampledFrom(model.Hooks[:]).Draw(t, "hook"), Protocol: m.Protocol,
			Count: 1, First: time.Unix(1_700_000_000, 0), Last: time.Unix(1_700_000_100, 0),
		}
		end := m.To
		if f.Hook == model.Accept {
			f.Local, f.Remote, end = m.To.Address, netip.AddrPortFrom(m.From.Local(), 40000), m.From
		} else {
			f.Local, f.Remote = netip.AddrPortFrom(m.From.Local(), m.From.Address.Port()), m.To.Address
		}
		switch {
		case f.Hook == model.Bind:
			f.Remote = netip.AddrPort{}
			if f.Protocol == model.ICMP {
				f.Local = netip.AddrPortFrom(f.Local.Addr(), 0)
			}
		case !f.Remote.Addr().IsValid():
			continue
		case end.Namespace != "":
			f.Peer = end.Namespace
		default:
			f.Unmanaged = end.Device == n.Device
		}
		flows = append(flows, f)
	}
	return flows
}

// TestLearnedIsAllowedAndNoMore patches drawn policies by drawn traffic: what
// was learned passes, what a rule denied stays denied, and each rule is made
// of what was seen.
func TestLearnedIsAllowedAndNoMore(t *testing.T) {
	policies := modeltest.YAML(modeltest.Usual)
	rapid.Check(t, func(t *rapid.T) {
		text := policies.Draw(t, "policy")
		p := modeltest.Parse(t, text)
		n := &p.SocketNamespaces[rapid.IntRange(0, len(p.SocketNamespaces)-1).Draw(t, "namespace")]
		flows := drawFlows(t, p, n)
		l, err := Rules(p, n.Name, flows, Options{EphemeralPorts: DefaultEphemeralPorts, Prefixes: rapid.Bool().Draw(t, "prefixes")})
		if err != nil {
			t.Fatal(err)
		}
		patched, err := l.Patch([]model.File{{Name: "policy.yaml", Data: []byte(text)}}, true)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		after := modeltest.Parse(t, string(patched.Data))
		for _, f := range flows {
			before, now := decide(p, f), decide(after, f)
			answer := slices.Contains(l.Answers, f)
			switch {
			case before.Rule != nil && before.Action == model.Deny:
				if now.Action != model.Deny || now.Rule.Index != before.Rule.Index {
					t.Fatalf("%s was denied by a rule and is not: %+v\n%s", f, now, patched.Data)
				}
			case now.Action != model.Allow && !answer:
				t.Fatalf("%s was learned and is refused: %+v\n%s", f, now, patched.Data)
			case now.Audit:
				t.Fatalf("still in audit\n%s", patched.Data)
			}
		}
	})
}

func TestRulesAreMadeOfNeeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var needs []need
		for range rapid.IntRange(1, 30).Draw(t, "count") {
			port := uint16(rapid.IntRange(1, 5).Draw(t, "port"))
			w := need{
				hook: rapid.SampledFrom(model.Hooks[:]).Draw(t, "hook"), protocol: rapid.SampledFrom(model.Protocols[:]).Draw(t, "protocol"),
				ports: model.PortRange{First: port, Last: port}, peer: fmt.Sprintf("p%d", rapid.IntRange(0, 3).Draw(t, "peer")), seen: seen{count: 1},
			}
			if w.protocol == model.ICMP {
				w.ports = model.PortRange{}
			}
			needs = append(needs, w)
		}
		type unit struct {
			hook     model.Hook
			protocol model.Protocol
			port     uint16
			peer     string
		}
		want, got := make(map[unit]bool), make(map[unit]bool)
		for _, w := range needs {
			want[unit{w.hook, w.protocol, w.ports.First, w.peer}] = true
		}
		count := uint64(0)
		for _, r := range rulesOf(needs) {
			count += r.Count
			for _, protocol := range r.Protocols {
				for _, peer := range r.Peers {
					if len(r.Ports) == 0 {
						got[unit{r.Hook, protocol, 0, peer}] = true
					}
					for _, pr := range r.Ports {
						for port := pr.First; port <= pr.Last; port++ {
							got[unit{r.Hook, protocol, port, peer}] = true
						}
					}
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || count != uint64(len(needs)) {
			t.Fatalf("%d of %d: %s", count, len(needs), diff)
		}
	})
}
