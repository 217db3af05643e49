package model

import (
	"fmt"
	"strings"
)

// Words returns the rule in the words of a plan: "may connect db tcp/5432".
func (r *Rule) Words() string {
	var b strings.Builder
	b.Grow(64) // most are shorter
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
	return joined(peers, ", ", Peer.String)
}

// TrafficWords returns protocols and ports in the words of a plan: "tcp/80,443",
// "tcp,udp/53", "port 80", or "" for everything.
func TrafficWords(protocols []Protocol, ports []PortRange) string {
	names := joined(protocols, ",", func(p Protocol) string { return string(p) })
	numbers := joined(ports, ",", PortRange.String)
	switch {
	case len(ports) == 0:
		return names
	case len(protocols) == 0:
		return "port " + numbers
	}
	return names + "/" + numbers
}

// joined joins words, mostly one.
func joined[T any](list []T, by string, word func(T) string) string {
	if len(list) == 1 {
		return word(list[0])
	}
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = word(v)
	}
	return strings.Join(words, by)
}
