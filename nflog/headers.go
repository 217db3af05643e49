package nflog

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Headers is what a packet's headers say of its two ends.
type Headers struct {
	Protocol     uint8 // IPPROTO_TCP and so on
	Source, Dest netip.AddrPort
}

// Headers reads a packet's headers; ok is false if they are cut off or of no
// family that is known. Ports are 0 where the protocol has none.
func (p Packet) Headers() (h Headers, ok bool) {
	b := p.Payload
	if len(b) == 0 {
		return h, false
	}
	var source, dest netip.Addr
	switch b[0] >> 4 {
	case 4: // RFC 791
		size := int(b[0]&15) * 4
		if size < 20 || len(b) < size {
			return h, false
		}
		h.Protocol = b[9]
		source, dest = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		b = b[size:]
	case 6: // RFC 8200
		if len(b) < 40 {
			return h, false
		}
		h.Protocol = b[6]
		source, dest = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		for b = b[40:]; isExtension(h.Protocol) && len(b) >= 8; {
			size := (int(b[1]) + 1) * 8
			h.Protocol = b[0]
			b = b[min(size, len(b)):]
		}
	default:
		return h, false
	}
	var from, to uint16
	switch h.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP:
		if len(b) < 4 {
			return h, false
		}
		from, to = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	h.Source, h.Dest = netip.AddrPortFrom(source, from), netip.AddrPortFrom(dest, to)
	return h, true
}

// isExtension reports whether a protocol number is of an IPv6 extension header
// that says its length in units of eight bytes.
func isExtension(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
		return true
	}
	return false
}
