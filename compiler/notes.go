package compiler

import (
	"fmt"

	"github.com/sockns/sockns/model"
)

// Note says where what is enforced differs from what was asked.
type Note struct {
	Pos       model.Position `json:"-"`
	Namespace string         `json:"namespace,omitempty"`
	Text      string         `json:"text"`
}

// notes lists what packets can't do as asked, and what does not exist.
func notes(p *model.Policy, f Facts) []Note {
	var out []Note
	for _, d := range p.DeviceNamespaces {
		if _, ok := f.Devices[d.Name]; !ok {
			out = append(out, Note{Pos: d.Pos, Text: fmt.Sprintf("device namespace %s does not exist (%s): its socket namespaces are not enforced", d.Name, d.Path)})
		}
	}
	for i := range p.SocketNamespaces {
		n := &p.SocketNamespaces[i]
		for _, h := range model.Hooks {
			for j := range n.Rules(h) {
				r := &n.Rules(h)[j]
				if text := packetNote(r); text != "" {
					out = append(out, Note{Pos: r.Pos, Namespace: n.Name, Text: fmt.Sprintf("%s rule %d: %s", h, r.Index, text)})
				}
			}
			if d := n.Default.For(h); d != nil && d.Action == model.Deny {
				if text := errnoNote(h, d.Error); text != "" {
					out = append(out, Note{Pos: d.Pos, Namespace: n.Name, Text: fmt.Sprintf("%s default: %s", h, text)})
				}
			}
		}
		if len(n.Bind) > 0 || n.Default.Bind != nil || len(n.Addresses) > 0 {
			out = append(out, Note{Pos: n.Pos, Namespace: n.Name, Text: "bind(2) itself succeeds: packets make a socket inert that is bound where it may not be"})
		}
	}
	for _, m := range f.Missing {
		out = append(out, Note{Pos: m.Member.Pos, Namespace: m.Namespace, Text: fmt.Sprintf("%s does not exist yet", m.Member)})
	}
	return out
}

func packetNote(r *model.Rule) string {
	if r.Hook == model.Accept && len(r.Protocols) > 0 && len(portTerms(r.Protocols, nil, destination, true)) == 0 {
		return "packets do not show the receiving socket of these protocols: not enforced"
	}
	if r.Action == model.Deny {
		return errnoNote(r.Hook, r.Error)
	}
	return ""
}

// errnoNote says what an application sees instead of an errno that packets
// can't give. Measured; docs/errors.md has the table.
func errnoNote(h model.Hook, e model.Errno) string {
	switch {
	case h == model.Bind:
		return "" // said once for the namespace
	case e == model.EACCES:
		return "EACCES is seen on IPv6; on IPv4 the application sees EHOSTUNREACH"
	case e == model.EPERM:
		return "instead of EPERM the application sees EHOSTUNREACH on IPv4 and EACCES on IPv6"
	}
	return ""
}
