package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes and attributes of include/uapi/linux/inet_diag.h that x/sys/unix does
// not have.
const (
	sizeofSockID  = 48 // struct inet_diag_sockid
	sizeofRequest = 8 + sizeofSockID
	sizeofMessage = 4 + sizeofSockID + 20

	// extensionInfo asks for INET_DIAG_INFO, which the name of the upper layer
	// (MPTCP) comes with.
	extensionInfo = 1 << (2 - 1)

	attributeV6Only   = 11 // INET_DIAG_SKV6ONLY
	attributeULP      = 19 // INET_DIAG_ULP_INFO, nested
	attributeCgroupID = 21 // INET_DIAG_CGROUP_ID

	attributeULPName = 1 // INET_ULP_INFO_NAME in INET_DIAG_ULP_INFO
)

// allStates asks for sockets in whatever state.
const allStates = 1<<(BoundInactive+1) - 1

// dumpRequest is an inet_diag_req_v2 for all sockets of a protocol and family.
func dumpRequest(p Protocol, family uint8) netlink.Message {
	data := make([]byte, sizeofRequest)
	data[0], data[1], data[2] = family, uint8(p), extensionInfo
	binary.NativeEndian.PutUint32(data[4:], allStates)
	return netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
		Data:   data,
	}
}

// destroyRequest is an inet_diag_req_v2 for one socket. Its cookie keeps it
// from another socket that has the same addresses by now.
func destroyRequest(s Socket) netlink.Message {
	data := make([]byte, sizeofRequest)
	data[0], data[1] = s.Family, uint8(s.Protocol)
	binary.NativeEndian.PutUint32(data[4:], allStates)
	putSockID(data[8:], s)
	return netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge},
		Data:   data,
	}
}

// putSockID encodes a struct inet_diag_sockid: ports and addresses in network
// order, the rest in the machine's.
func putSockID(b []byte, s Socket) {
	binary.BigEndian.PutUint16(b[0:], s.Local.Port())
	binary.BigEndian.PutUint16(b[2:], s.Remote.Port())
	putAddr(b[4:20], s.Family, s.Local.Addr())
	putAddr(b[20:36], s.Family, s.Remote.Addr())
	binary.NativeEndian.PutUint32(b[36:], s.Interface)
	binary.NativeEndian.PutUint32(b[40:], uint32(s.Cookie))
	binary.NativeEndian.PutUint32(b[44:], uint32(s.Cookie>>32))
}

func putAddr(b []byte, family uint8, addr netip.Addr) {
	if family == unix.AF_INET {
		a := addr.As4()
		copy(b, a[:])
		return
	}
	a := addr.As16() // IPv4 becomes IPv4-mapped again
	copy(b, a[:])
}

// parseSocket decodes a struct inet_diag_msg with its attributes.
func parseSocket(p Protocol, b []byte) (Socket, error) {
	if len(b) < sizeofMessage {
		return Socket{}, fmt.Errorf("socket message of %d bytes", len(b))
	}
	s := Socket{Protocol: p, Family: b[0], State: State(b[1])}
	if s.Family != unix.AF_INET && s.Family != unix.AF_INET6 {
		return Socket{}, fmt.Errorf("socket message of address family %d", s.Family)
	}
	id, rest := b[4:4+sizeofSockID], b[4+sizeofSockID:]
	s.Local = netip.AddrPortFrom(parseAddr(id[4:20], s.Family), binary.BigEndian.Uint16(id[0:]))
	s.Remote = netip.AddrPortFrom(parseAddr(id[20:36], s.Family), binary.BigEndian.Uint16(id[2:]))
	s.Interface = binary.NativeEndian.Uint32(id[36:])
	s.Cookie = uint64(binary.NativeEndian.Uint32(id[40:])) | uint64(binary.NativeEndian.Uint32(id[44:]))<<32
	s.UID = binary.NativeEndian.Uint32(rest[12:]) // after expires, rqueue and wqueue
	s.Inode = binary.NativeEndian.Uint32(rest[16:])

	attributes, err := netlink.NewAttributeDecoder(b[sizeofMessage:])
	if err != nil {
		return Socket{}, err
	}
	for attributes.Next() {
		switch attributes.Type() {
		case attributeV6Only:
			s.V6Only = attributes.Uint8() != 0
		case attributeULP:
			attributes.Nested(func(ulp *netlink.AttributeDecoder) error {
				for ulp.Next() {
					s.Multipath = s.Multipath || ulp.Type() == attributeULPName && ulp.String() == "mptcp"
				}
				return nil
			})
		case attributeCgroupID:
			s.CgroupID = attributes.Uint64()
		}
	}
	return s, attributes.Err()
}

func parseAddr(b []byte, family uint8) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}
