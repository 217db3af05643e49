package compiler

import (
	"testing"

	"github.com/sockns/sockns/model"
)

func TestPrefix(t *testing.T) {
	const longest = 127 // NF_LOG_PREFIXLEN less its end
	name := "a-name-of-sixty-three-bytes-which-is-the-most-that-is-allowed--"
	for _, p := range []Prefix{
		{Outcome: Refused, End: EndTo, Hook: model.Accept, Errno: model.ECONNREFUSED},
		{Outcome: Refused, End: EndOut, Hook: model.Bind, Rule: 3, Errno: model.ECONNREFUSED},
		{Outcome: Audited, Namespace: name, End: EndFrom, Hook: model.Connect, Rule: 65535, Errno: model.EADDRNOTAVAIL},
		{Outcome: Allowed, Namespace: "web", End: EndTo, Hook: model.Accept, Rule: 1},
	} {
		text := p.String()
		if back, err := ParsePrefix(text); err != nil || back != p || len(text) > longest {
			t.Errorf("%q: %+v, %v", text, back, err)
		}
	}
	for _, bad := range []string{"", PeerPrefix, "sockns refuse to accept", "sockns refuse to accept x ECONNREFUSED", "sockns audit web from speak 1", "other refuse to accept 1"} {
		if p, err := ParsePrefix(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, p)
		}
	}
}
