package sockdiag

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Little-endian machines only: the bytes are as one of those sends them.
const (
	sockID4 = "0050 1f90" + // ports 80, 8080
		"c000020a 00000000 00000000 00000000" + // 192.0.2.10
		"c6336401 00000000 00000000 00000000" + // 198.51.100.1
		"03000000 2a000000 01000000" // interface 3, cookie 0x1_0000_002a
	sockIDMapped = "0050 1f90" +
		"00000000 00000000 0000ffff c000020a" +
		"00000000 00000000 0000ffff c6336401" +
		"00000000 2a000000 00000000"
	sockID6 = "0050 0000" +
		"20010db8 00000000 00000000 00000010" +
		"00000000 00000000 00000000 00000000" +
		"00000000 2a000000 00000000"
	counters = "00000000 00000000 00000000 e8030000 39300000" // uid 1000, inode 12345
)

var samples = []struct {
	name    string
	message string
	socket  Socket
}{
	{
		"IPv4 connection",
		"02 01 00 00" + sockID4 + counters + "0c00 1500 8877665544332211",
		Socket{Protocol: TCP, Family: unix.AF_INET, State: Established, Local: netip.MustParseAddrPort("192.0.2.10:80"),
			Remote: netip.MustParseAddrPort("198.51.100.1:8080"), Interface: 3, CgroupID: 0x1122334455667788, UID: 1000,
			Inode: 12345, Cookie: 0x1_0000_002a},
	},
	{
		"IPv4 on an IPv6 socket",
		"0a 01 00 00" + sockIDMapped + counters + "0c00 1500 0100000000000000",
		Socket{Protocol: TCP, Family: unix.AF_INET6, State: Established, Local: netip.MustParseAddrPort("192.0.2.10:80"),
			Remote: netip.MustParseAddrPort("198.51.100.1:8080"), CgroupID: 1, UID: 1000, Inode: 12345, Cookie: 0x2a},
	},
	{
		"IPv6 listener, no IPv4, another attribute between",
		"0a 0a 00 00" + sockID6 + counters + "0500 0b00 01000000 0500 0800 00000000 0c00 1500 0100000000000000",
		Socket{Protocol: TCP, Family: unix.AF_INET6, State: Listen, Local: netip.MustParseAddrPort("[2001:db8::10]:80"),
			Remote: netip.MustParseAddrPort("[::]:0"), V6Only: true, CgroupID: 1, UID: 1000, Inode: 12345, Cookie: 0x2a},
	},
	{
		"no cgroup",
		"0a 06 00 00" + sockID6 + counters,
		Socket{Protocol: TCP, Family: unix.AF_INET6, State: TimeWait, Local: netip.MustParseAddrPort("[2001:db8::10]:80"),
			Remote: netip.MustParseAddrPort("[::]:0"), UID: 1000, Inode: 12345, Cookie: 0x2a},
	},
}

func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseSocket(t *testing.T) {
	for _, test := range samples {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseSocket(TCP, bytesOf(t, test.message))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.socket, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, message := range map[string]string{
		"empty":                  "",
		"short":                  "02 01 00 00" + sockID4,
		"another address family": "01 01 00 00" + sockID4 + counters,
		"attribute cut off":      "02 01 00 00" + sockID4 + counters + "0c00 1500 88776655",
		"cgroup id too short":    "02 01 00 00" + sockID4 + counters + "0800 1500 88776655",
	} {
		if s, err := parseSocket(TCP, bytesOf(t, message)); err == nil {
			t.Errorf("%s: parsed %+v", name, s)
		}
	}
}

// TestDestroyRequestNamesTheSocket: what a dump says comes back byte for byte,
// or the kernel would not find the socket.
func TestDestroyRequestNamesTheSocket(t *testing.T) {
	for _, test := range samples {
		t.Run(test.name, func(t *testing.T) {
			m := destroyRequest(test.socket)
			want := bytesOf(t, test.message)[4 : 4+sizeofSockID]
			if diff := cmp.Diff(want, m.Data[8:]); diff != "" || m.Data[0] != test.socket.Family || m.Data[1] != unix.IPPROTO_TCP {
				t.Errorf("% x: %s", m.Data, diff)
			}
		})
	}
}

func FuzzParseSocket(f *testing.F) {
	for _, s := range samples {
		b, _ := hex.DecodeString(strings.ReplaceAll(s.message, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSocket(UDP, b)
		if err == nil {
			_ = s.String()
			destroyRequest(s)
		}
	})
}
