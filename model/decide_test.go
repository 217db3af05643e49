package model

import (
	"net/netip"
	"testing"
)

// contract is the policy that the language's definition decides about.
const contract = `apiVersion: sockns/v1
groups:
  corp: [10.0.0.0/8, 2001:db8::/32, 192.0.2.10-192.0.2.20]
socketNamespaces:
  web:
    members: [{unit: nginx.service}, {cgroup: /prod.slice/web}]
    addresses: [192.0.2.10, 2001:db8::10]
    bind: [{protocol: tcp, ports: [80, 443]}]
    accept: [{protocol: tcp, ports: [80, 443], from: any}]
    connect:
      - {protocol: tcp, ports: 5432, to: db}
      - {protocol: udp, ports: 53, to: [10.0.0.53, corp]}
      - {action: deny, error: EHOSTUNREACH, to: 169.254.169.254}
    default: {connect: {action: deny, error: ECONNREFUSED}}
  db:
    members: [{unit: postgresql.service}]
    accept: [{protocol: tcp, ports: 5432, from: [web, corp]}]
  user:
    each: /user.slice/user-*.slice
    connect: [{to: any}]
  closed:
    members: [{cgroup: /prod.slice/closed}]
    connect: [{action: deny, error: EPERM, to: self}, {to: any}]
    accept: [{from: any}]
    default: {bind: allow}
  far:
    deviceNamespace: blue
    members: [{cgroup: /prod.slice/far}]
    addresses: 198.51.100.7
    accept: [{from: web}]
  watched:
    members: [{cgroup: /prod.slice/watched}]
    mode: audit
deviceNamespaces: {blue: {netns: blue}}
`

func parseContract(t *testing.T) *Policy {
	t.Helper()
	p, diagnostics := Parse([]File{{Name: "policy.yaml", Data: []byte(contract)}})
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	return p
}

func TestDecide(t *testing.T) {
	p := parseContract(t)
	host := func(namespace, address string) End {
		e := End{Namespace: namespace, Device: HostDevice}
		if address != "" {
			e.Address = netip.MustParseAddrPort(address)
		}
		return e
	}
	remote := func(address string) End { return End{Address: netip.MustParseAddrPort(address)} }
	for _, test := range []struct {
		name     string
		proto    Protocol
		from, to End
		connect  Reason // what decided, and below the number of the rule
		rule     int
		accept   Reason
		ruleTo   int
		sees     Errno
	}{
		{"web to db on loopback", TCP, host("web", ""), host("db", "127.0.0.1:5432"), ByRule, 1, ByRule, 1, ""},
		{"web to an unmanaged socket", TCP, host("web", ""), host("", "127.0.0.1:631"), ByDefault, 0, ByUnmanaged, 0, ECONNREFUSED},
		{"web to the metadata service", TCP, host("web", ""), remote("169.254.169.254:80"), ByRule, 3, ByUnmanaged, 0, EHOSTUNREACH},
		{"unmanaged to db on loopback", TCP, host("", ""), host("db", "127.0.0.1:5432"), ByUnmanaged, 0, ByDefault, 0, ECONNREFUSED},
		{"unmanaged from an address of corp", TCP, host("", "10.1.2.3:40000"), host("db", "10.1.2.3:5432"), ByUnmanaged, 0, ByRule, 1, ""},
		{"unmanaged from web's address, which corp holds too", TCP, host("", "192.0.2.10:40000"), host("db", "192.0.2.9:5432"), ByUnmanaged, 0, ByRule, 1, ""},
		{"a user to another's notebook", TCP, host("user/1000", ""), host("user/1001", "127.0.0.1:8888"), ByRule, 1, ByDefault, 0, ECONNREFUSED},
		{"a user to an own notebook", TCP, host("user/1000", ""), host("user/1000", "127.0.0.1:8888"), ByRule, 1, BySame, 0, ""},
		{"a denial of self comes before the same namespace", TCP, host("closed", ""), host("closed", "127.0.0.1:80"), ByRule, 1, ByRule, 1, EPERM},
		{"udp to a group", UDP, host("web", ""), remote("10.9.9.9:53"), ByRule, 2, ByUnmanaged, 0, ""},
		{"tcp is not udp", TCP, host("web", ""), remote("10.9.9.9:53"), ByDefault, 0, ByUnmanaged, 0, ECONNREFUSED},
		{"another machine to web", TCP, remote("203.0.113.9:40000"), host("web", "192.0.2.10:443"), ByUnmanaged, 0, ByRule, 1, ""},
		{"another device namespace is known by its addresses", TCP, End{Namespace: "web", Device: HostDevice, Address: netip.MustParseAddrPort("192.0.2.10:0")},
			End{Namespace: "far", Device: "blue", Address: netip.MustParseAddrPort("198.51.100.7:80")}, ByDefault, 0, ByRule, 1, ECONNREFUSED},
		{"audit refuses nothing", TCP, host("watched", ""), remote("203.0.113.9:80"), ByDefault, 0, ByUnmanaged, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := Decide(p, Flow{Protocol: test.proto, From: test.from, To: test.to})
			for _, v := range []struct {
				got    Verdict
				reason Reason
				rule   int
			}{{d.Connect, test.connect, test.rule}, {d.Accept, test.accept, test.ruleTo}} {
				rule := 0
				if v.got.Rule != nil {
					rule = v.got.Rule.Index
				}
				if v.got.Reason != v.reason || rule != v.rule {
					t.Errorf("%s: decided by %s %d, want %s %d", v.got.Hook, v.got.Reason, rule, v.reason, v.rule)
				}
			}
			if got := d.Error(); got != test.sees || d.Allowed() != (test.sees == "") {
				t.Errorf("sees %q, allowed %v; want %q", got, d.Allowed(), test.sees)
			}
		})
	}
}

func TestDecideBind(t *testing.T) {
	p := parseContract(t)
	for _, test := range []struct {
		name, namespace string
		proto           Protocol
		local           string
		want            Errno // "" allows
	}{
		{"a rule's port on the wildcard", "web", TCP, "0.0.0.0:80", ""},
		{"on an own address", "web", TCP, "[2001:db8::10]:443", ""},
		{"loopback belongs to every namespace", "web", TCP, "127.0.0.1:80", ""},
		{"an address of another", "web", TCP, "192.0.2.11:80", EADDRNOTAVAIL},
		{"a port that no rule allows", "web", TCP, "192.0.2.10:81", EACCES},
		{"the rule is tcp's", "web", UDP, "192.0.2.10:80", EACCES},
		{"port 0 needs no rule", "web", UDP, "192.0.2.10:0", ""},
		{"port 0 of another address", "web", UDP, "192.0.2.11:0", EADDRNOTAVAIL},
		{"no bind rules, no addresses: everything", "db", TCP, "198.51.100.1:1", ""},
		{"unmanaged", "", TCP, "192.0.2.10:80", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := DecideBind(p, test.namespace, test.proto, netip.MustParseAddrPort(test.local))
			if got := v.Error; got != test.want || v.Refuses() != (test.want != "") {
				t.Errorf("%q, refuses %v; want %q", got, v.Refuses(), test.want)
			}
		})
	}
}

func TestDecideBindTaken(t *testing.T) {
	p, diagnostics := Parse([]File{{Name: "policy.yaml", Data: []byte(`apiVersion: sockns/v1
socketNamespaces:
  a: {members: [{cgroup: /a}], bind: [{protocol: tcp, ports: 80-90}]}
  b: {members: [{cgroup: /b}], addresses: 192.0.2.1, bind: [{protocol: tcp, ports: 443}]}
  c: {members: [{cgroup: /c}], addresses: 192.0.2.2, bind: [{protocol: tcp, ports: 444}]}
  d: {members: [{cgroup: /d}], bind: [{protocol: tcp, ports: 445}]}
  e: {members: [{cgroup: /e}], addresses: [192.0.2.0-192.0.2.1, 192.0.2.8], bind: [{protocol: tcp, ports: 446}]}
`)}})
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	for local, want := range map[string]Errno{
		"192.0.2.1:85":  EADDRINUSE, // a has it on all addresses
		"0.0.0.0:85":    EADDRINUSE,
		"192.0.2.1:91":  EACCES,
		"192.0.2.1:444": EACCES, // c has it on its own address
		"127.0.0.1:444": EADDRINUSE,
		"192.0.2.1:446": EADDRINUSE, // e shares the address
		"0.0.0.0:446":   EADDRINUSE,
		"192.0.2.1:443": "",
		"192.0.2.2:85":  EADDRNOTAVAIL,
	} {
		if got := DecideBind(p, "b", TCP, netip.MustParseAddrPort(local)).Error; got != want {
			t.Errorf("b binds %s: %q, want %q", local, got, want)
		}
	}
	for local, want := range map[string]Errno{
		"192.0.2.2:444": EADDRINUSE, // c has it there
		"192.0.2.9:444": EADDRINUSE,
		"0.0.0.0:444":   EADDRINUSE,
		"192.0.2.2:447": EACCES,
		"192.0.2.2:445": "",
	} {
		if got := DecideBind(p, "d", TCP, netip.MustParseAddrPort(local)).Error; got != want {
			t.Errorf("d binds %s: %q, want %q", local, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	p := parseContract(t)
	for _, test := range []struct {
		namespace string
		hook      Hook
		want      []string
	}{
		{"web", Bind, []string{"may bind tcp/80,443"}},
		{"web", Connect, []string{"may connect db tcp/5432", "may connect 10.0.0.53, corp udp/53", "may not connect 169.254.169.254 (EHOSTUNREACH)"}},
		{"db", Accept, []string{"may accept from web, corp tcp/5432"}},
	} {
		rules := p.Namespace(test.namespace).Rules(test.hook)
		for i := range rules {
			if got := rules[i].Words(); got != test.want[i] {
				t.Errorf("%s %s %d: %q, want %q", test.namespace, test.hook, i+1, got, test.want[i])
			}
		}
	}
}
