package nflog

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var udp4 = []byte{
	0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
	0x80, 0, 0, 53, 0, 8, 0, 0,
}

func TestHeaders(t *testing.T) {
	tcp6 := append([]byte{0x60, 0, 0, 0, 0, 28, unix.IPPROTO_HOPOPTS, 64}, make([]byte, 32)...)
	tcp6[23], tcp6[39] = 1, 2
	tcp6 = append(tcp6, unix.IPPROTO_TCP, 0, 0, 0, 0, 0, 0, 0)
	tcp6 = append(tcp6, 0x80, 1, 0x1f, 0x90)
	for _, c := range []struct {
		payload []byte
		want    Headers
		ok      bool
	}{
		{udp4, Headers{17, netip.MustParseAddrPort("10.0.0.1:32768"), netip.MustParseAddrPort("10.0.0.2:53")}, true},
		{tcp6, Headers{6, netip.MustParseAddrPort("[::1]:32769"), netip.MustParseAddrPort("[::2]:8080")}, true},
		{udp4[:22], Headers{}, false},
		{tcp6[:30], Headers{}, false},
		{[]byte{0x10}, Headers{}, false},
		{nil, Headers{}, false},
	} {
		got, ok := Packet{Payload: c.payload}.Headers()
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%x: %+v, %v", c.payload, got, ok)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add(udp4)
	f.Fuzz(func(_ *testing.T, b []byte) { Packet{Payload: b}.Headers() })
}

func TestParse(t *testing.T) {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: attrHeader, Data: []byte{8, 0, 1, 0}},
		{Type: attrMark, Data: []byte{0, 0, 1, 2}},
		{Type: attrIn, Data: []byte{0, 0, 0, 1}},
		{Type: attrPrefix, Data: []byte("sockns\x00")},
		{Type: attrUID, Data: []byte{0, 0, 3, 0xe8}},
		{Type: attrPayload, Data: udp4},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_ULOG << 8}, Data: append(make([]byte, headerSize), attributes...)}
	got, ok, err := parse(m)
	want := Packet{Prefix: "sockns", Mark: 0x102, Hook: 1, In: 1, UID: 1000, HasUID: true, Payload: udp4}
	if diff := cmp.Diff(want, got); diff != "" || !ok || err != nil {
		t.Errorf("%v %v\n%s", ok, err, diff)
	}
	m.Data = m.Data[:len(m.Data)-3]
	if _, _, err := parse(m); err == nil {
		t.Error("a message that breaks off is read")
	}
}
