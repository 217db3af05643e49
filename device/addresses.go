package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// LocalAddresses returns the addresses of all devices of the namespace, IPv4
// before IPv6, each once, in order, without zones. Loopback addresses are left
// out (127.0.0.0/8 and ::1): they belong to every socket namespace. Addresses
// that are local by a route only (`ip route add local`) are not among them.
// The source is RTM_GETADDR (rtnetlink(7)).
func (n *Namespace) LocalAddresses() ([]netip.Addr, error) {
	addrs, err := n.dumpAddresses()
	if err != nil {
		return nil, fmt.Errorf("device namespace %s: list addresses: %w", n.name, err)
	}
	addrs = slices.DeleteFunc(addrs, netip.Addr.IsLoopback)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

func (n *Namespace) dumpAddresses() ([]netip.Addr, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: n.NetNS(), Strict: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfAddrmsg),
	}
	const attempts = 10
	for range attempts {
		messages, err := conn.Execute(request)
		if err != nil {
			return nil, err
		}
		addrs, complete, err := parseAddresses(messages)
		if err != nil || complete {
			return addrs, err
		}
	}
	return nil, errors.New("they change faster than they can be listed")
}

// parseAddresses decodes the answer to RTM_GETADDR. complete is false if the
// kernel says that the list changed while it was sent.
func parseAddresses(messages []netlink.Message) (addrs []netip.Addr, complete bool, err error) {
	complete = true
	for _, m := range messages {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			complete = false
		}
		if m.Header.Type != unix.RTM_NEWADDR {
			continue
		}
		addr, err := parseAddress(m.Data)
		if err != nil {
			return nil, false, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, complete, nil
}

// parseAddress decodes one RTM_NEWADDR. IFA_LOCAL is the local address where
// there is one; IFA_ADDRESS is the peer's then, and the local one otherwise.
func parseAddress(message []byte) (netip.Addr, error) {
	if len(message) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, fmt.Errorf("address message of %d bytes", len(message))
	}
	attributes, err := netlink.NewAttributeDecoder(message[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, err
	}
	attributes.ByteOrder = binary.NativeEndian
	var local, address []byte
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFA_LOCAL:
			local = attributes.Bytes()
		case unix.IFA_ADDRESS:
			address = attributes.Bytes()
		}
	}
	if err := attributes.Err(); err != nil {
		return netip.Addr{}, err
	}
	if local == nil {
		local = address
	}
	addr, ok := netip.AddrFromSlice(local)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address of %d bytes", len(local))
	}
	return addr, nil
}
