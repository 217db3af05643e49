package model

import "testing"

// What a ping socket sees, as measured on Linux 6.18.
func TestSightOfPing(t *testing.T) {
	for _, test := range []struct {
		ipv6           bool
		errno          Errno
		calls, packets string
	}{
		{false, EHOSTUNREACH, "connect(2) fails with EHOSTUNREACH at once", "sendto(2) fails with EPERM at once"},
		{false, ECONNREFUSED, "connect(2) fails with ECONNREFUSED at once", "sendto(2) fails with EPERM at once"},
		{true, EHOSTUNREACH, "connect(2) fails with EHOSTUNREACH at once", "silence: sendto(2) gets no answer"},
		{true, EPERM, "connect(2) fails with EPERM at once", "EACCES " + string(OnReceive)},
		{true, ECONNREFUSED, "connect(2) fails with ECONNREFUSED at once", "ECONNREFUSED " + string(OnReceive)},
	} {
		for _, loopback := range []bool{false, true} {
			r := Refusal{Hook: Connect, Error: test.errno, Protocol: ICMP, IPv6: test.ipv6, Loopback: loopback, Managed: loopback}
			if got := r.Syscalls().String(); got != test.calls {
				t.Errorf("%+v: %s, want %s", r, got, test.calls)
			}
			if got := r.Packets().String(); got != test.packets {
				t.Errorf("%+v: %s, want %s", r, got, test.packets)
			}
		}
	}
}
