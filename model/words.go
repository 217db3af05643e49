package model

import (
	"fmt"
	"strings"
)

// Words returns the rule in the words of a plan: "may connect db tcp/5432".
func (r *Rule) Words() string {
	var b strings.Builder
	b.WriteString("may ")
	if r.Action == Deny {
		b.WriteString("not ")
	}
	b.WriteString(r.Hook.String())
	if r.Hook != Bind {
		if r.Hook == Accept {
			b.WriteString(" from")
		}
		b.WriteByte(' ')
		b.WriteString(peerWords(r.Peers))
	}
	if what := TrafficWords(r.Protocols, r.Ports); what != "" {
		b.WriteString(" " + what)
	}
	if len(r.Local) > 0 {
		b.WriteString(" on " + peerWords(r.Local))
	}
	if r.Action == Deny && r.Error != "" {
		fmt.Fprintf(&b, " (%s)", r.Error)
	}
	if r.Log {
		b.WriteString(", logged")
	}
	if r.Audit {
		b.WriteString(", in audit")
	}
	return b.String()
}

func peerWords(peers []Peer) string {
	if len(peers) == 0 {
		return "any"
	}
	words := make([]string, len(peers))
	for i, p := range peers {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

// TrafficWords returns protocols and ports in the words of a plan: "tcp/80,443",
// "tcp,udp/53", "port 80", or "" for everything.
func TrafficWords(protocols []Protocol, ports []PortRange) string {
	names := make([]string, len(protocols))
	for i, p := range protocols {
		names[i] = string(p)
	}
	numbers := make([]string, len(ports))
	for i, r := range ports {
		numbers[i] = r.String()
	}
	switch {
	case len(ports) == 0:
		return strings.Join(names, ",")
	case len(protocols) == 0:
		return "port " + strings.Join(numbers, ",")
	}
	return strings.Join(names, ",") + "/" + strings.Join(numbers, ",")
}
