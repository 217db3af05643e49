package device

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addressMessage encodes an RTM_NEWADDR with the given attributes.
func addressMessage(t *testing.T, attributes ...netlink.Attribute) netlink.Message {
	t.Helper()
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWADDR},
		Data:   append(make([]byte, unix.SizeofIfAddrmsg), data...),
	}
}

func TestParseAddresses(t *testing.T) {
	attribute := func(kind uint16, addr string) netlink.Attribute {
		return netlink.Attribute{Type: kind, Data: netip.MustParseAddr(addr).AsSlice()}
	}
	plain := addressMessage(t, attribute(unix.IFA_ADDRESS, "2001:db8::1"))
	pointToPoint := addressMessage(t, attribute(unix.IFA_ADDRESS, "192.0.2.2"), attribute(unix.IFA_LOCAL, "192.0.2.1"))
	interrupted := plain
	interrupted.Header.Flags |= netlink.DumpInterrupted
	other := netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWLINK}}
	short := netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWADDR}, Data: []byte{1, 2}}
	tests := []struct {
		name     string
		messages []netlink.Message
		want     string // addresses, "incomplete" or "error"
	}{
		{"none", nil, ""},
		{"plain, point to point, and another message", []netlink.Message{plain, other, pointToPoint}, "2001:db8::1 192.0.2.1 "},
		{"changed meanwhile", []netlink.Message{plain, interrupted}, "2001:db8::1 2001:db8::1 incomplete"},
		{"short", []netlink.Message{short}, "error"},
		{"no address", []netlink.Message{addressMessage(t)}, "error"},
		{"odd length", []netlink.Message{addressMessage(t, netlink.Attribute{Type: unix.IFA_LOCAL, Data: []byte{1, 2, 3}})}, "error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			addrs, complete, err := parseAddresses(test.messages)
			got := ""
			for _, a := range addrs {
				got += a.String() + " "
			}
			if err != nil {
				got = "error"
			} else if !complete {
				got += "incomplete"
			}
			if got != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

func TestParsePortRange(t *testing.T) {
	for text, want := range map[string][]uint16{
		"32768\t60999\n": {32768, 60999},
		"1 65535":        {1, 65535},
		"":               nil, "1": nil, "1 2 3": nil, "2 1": nil, "1 65536": nil, "a b": nil, "-1 5": nil,
	} {
		first, last, err := parsePortRange(text)
		if err != nil && want != nil || err == nil && !slices.Equal([]uint16{first, last}, want) {
			t.Errorf("parsePortRange(%q) = %d, %d, %v, want %v", text, first, last, err, want)
		}
	}
}
