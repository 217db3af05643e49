package compiler

import (
	"fmt"
	"slices"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/syscalls"
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
				if text := ruleNote(r, f.Syscalls && n.Mode != model.Audit); text != "" {
					out = append(out, Note{Pos: r.Pos, Namespace: n.Name, Text: fmt.Sprintf("%s rule %d: %s", h, r.Index, text)})
				}
			}
			if d := n.Default.For(h); d != nil && d.Action == model.Deny && !(f.Syscalls && h == model.Connect) {
				if text := errnoNote(h, d.Error); text != "" {
					out = append(out, Note{Pos: d.Pos, Namespace: n.Name, Text: fmt.Sprintf("%s default: %s", h, text)})
				}
			}
		}
		if f.Syscalls {
			if text := wildcardNote(n, f.Steers); text != "" {
				out = append(out, Note{Pos: n.Pos, Namespace: n.Name, Text: text})
			}
		} else if len(n.Bind) > 0 || n.Default.Bind != nil || len(n.Addresses) > 0 {
			out = append(out, Note{Pos: n.Pos, Namespace: n.Name, Text: "bind(2) itself succeeds: packets make a socket inert that is bound where it may not be"})
		}
	}
	for _, m := range f.Missing {
		out = append(out, Note{Pos: m.Member.Pos, Namespace: m.Namespace, Text: fmt.Sprintf("%s does not exist yet", m.Member)})
	}
	return out
}

// ruleNote says what the rule can't do as asked; calls says that the syscall
// tier answers for its namespace.
func ruleNote(r *model.Rule, calls bool) string {
	switch {
	case !calls:
		return packetNote(r)
	case r.Hook == model.Connect && r.Action == model.Deny:
		return pingNote(r) // any other call gives the exact error
	case r.Hook == model.Accept && packetNote(r) != "":
		return packetNote(r) + "; a local application whose connect(2) it refuses sees the error itself"
	}
	return packetNote(r)
}

// wildcardNote says what a wildcard bind means in a namespace with addresses,
// where the syscall tier gives it the namespace's own. steers says that TCP
// listeners are steered: then each serves all that it asked for.
func wildcardNote(n *model.SocketNamespace, steers bool) string {
	if len(n.Addresses) == 0 || n.Mode == model.Audit {
		return ""
	}
	who := "a wildcard bind"
	if steers {
		who = "a wildcard bind of UDP"
	}
	flags := addressFlags(n)
	four, six := flags&syscalls.OneAddress4 != 0, flags&syscalls.OneAddress6 != 0
	none4, none6 := flags&syscalls.NoAddress4 != 0, flags&syscalls.NoAddress6 != 0
	const stays = " stays one: it serves all addresses of the namespace, and keeps its port from the other namespaces of the device namespace"
	switch {
	case four && none6, six && none4:
		return who + " gets the namespace's address, and is not reached on loopback"
	case four && six:
		return who + " for one family gets the namespace's address, and is not reached on loopback; one for both families ([::] without IPV6_V6ONLY)" + stays
	default:
		return "the namespace has several addresses of a family: " + who + stays
	}
}

func packetNote(r *model.Rule) string {
	if r.Hook == model.Accept && len(r.Protocols) > 0 && len(portTerms(r.Protocols, nil, destination, anyTransport)) == 0 {
		return "packets do not show the receiving socket of these protocols: not enforced"
	}
	if r.Action == model.Deny {
		return errnoNote(r.Hook, r.Error)
	}
	return ""
}

// pingNote says what becomes of the errno of a rule that names ping sockets.
func pingNote(r *model.Rule) string {
	if r.Error == "" || !slices.Contains(r.Protocols, model.ICMP) {
		return ""
	}
	return fmt.Sprintf("%s is seen by a ping socket that calls connect(2); sendto(2) without it fails with EPERM on IPv4, and gets no answer on IPv6", r.Error)
}

// errnoNote says what an application sees instead of an errno that packets
// can't give on one family or on both.
func errnoNote(h model.Hook, e model.Errno) string {
	if h == model.Bind || e == "" {
		return "" // a bind's is said once for the namespace
	}
	r := model.Refusal{Hook: h, Error: e, Protocol: model.TCP, Loopback: true}
	four := r.Packets()
	r.IPv6 = true
	six := r.Packets()
	switch {
	case four.When == model.Silence || four.Errno == e && six.Errno == e:
		return ""
	case six.Errno == e:
		return fmt.Sprintf("%s is seen on IPv6; on IPv4 the application sees %s", e, four.Errno)
	}
	return fmt.Sprintf("instead of %s the application sees %s on IPv4 and %s on IPv6", e, four.Errno, six.Errno)
}
