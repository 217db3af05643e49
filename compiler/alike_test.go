package compiler

import (
	"reflect"
	"strings"
	"testing"

	"github.com/sockns/sockns/model"
)

// TestAlike changes a namespace in each way that its chains follow from, and
// in those that they don't.
func TestAlike(t *testing.T) {
	const head = "apiVersion: sockns/v1\ngroups: {corp: [192.0.2.1], home: [192.0.2.1]}\nsocketNamespaces:\n"
	const base = "    members: [{cgroup: /a}]\n    addresses: [192.0.2.10]\n    bind: [{protocol: tcp, ports: 80}]\n" +
		"    connect: [{protocol: tcp, ports: 5432, to: [b, 192.0.2.0/24, corp]}]\n    default: {accept: allow}\n"
	said := func(name, text string) string {
		p := parse(t, []byte(head+"  "+name+":\n"+text+"  b: {members: [{cgroup: /b}]}\n"))
		return string(appendSaid(nil, p.Namespace(name)))
	}
	replace := func(old, new string) string {
		if !strings.Contains(base, old) {
			t.Fatalf("%q is not in the policy", old)
		}
		return strings.Replace(base, old, new, 1)
	}
	for _, same := range []string{base, replace("/a", "/elsewhere"), replace("    addresses", "\n\n    addresses")} {
		if said("a", same) != said("a", base) {
			t.Errorf("not alike:\n%s", same)
		}
	}
	if said("other", base) != said("a", base) {
		t.Error("the name matters, and nothing asks for it")
	}
	for _, c := range [][2]string{
		{"192.0.2.10", "192.0.2.11"}, {"80}", "81}"}, {"80}", "80, log: true}"}, {"80}", `"80-81"}`},
		{"5432", "[5432, 5433]"}, {"protocol: tcp, ports: 5432", "protocol: udp, ports: 5432"},
		{"to: [b", "to: [a"}, {"to: [b", "to: [self"}, {"to: [b", "to: [unmanaged"}, {"/24", "/25"}, {"corp", "home"},
		{"{protocol: tcp, ports: 5432", "{action: deny, protocol: tcp, ports: 5432"},
		{"{protocol: tcp, ports: 5432", "{action: deny, error: EACCES, protocol: tcp, ports: 5432"},
		{"accept: allow", "accept: deny"}, {"accept: allow", "connect: allow"}, {"    default", "    mode: audit\n    default"},
	} {
		if other := replace(c[0], c[1]); said("a", other) == said("a", base) {
			t.Errorf("alike, but is not:\n%s", other)
		}
	}
	if named := replace("80}", "80, log: true}"); said("a", named) == said("other", named) {
		t.Error("the name is in the log's lines, and does not matter")
	}
}

// TestSaidKnowsAllFields fails when the language grows: what is new has to be
// told apart by appendSaid, or stand here because chains do not follow from it.
func TestSaidKnowsAllFields(t *testing.T) {
	for _, c := range []struct {
		value any
		count int
	}{{model.SocketNamespace{}, 12}, {model.Rule{}, 11}, {model.Peer{}, 4}, {model.Outcome{}, 3}, {model.Defaults{}, 3}} {
		if n := reflect.TypeOf(c.value).NumField(); n != c.count {
			t.Errorf("%T has %d fields, appendSaid knows of %d", c.value, n, c.count)
		}
	}
}
