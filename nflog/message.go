package nflog

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/netfilter/nfnetlink_log.h, what golang.org/x/sys/unix lacks.
const (
	msgPacket = 0 // NFULNL_MSG_PACKET
	msgConfig = 1 // NFULNL_MSG_CONFIG

	cfgCmd       = 1 // NFULA_CFG_CMD
	cfgMode      = 2 // NFULA_CFG_MODE
	cfgTimeout   = 4 // NFULA_CFG_TIMEOUT
	cfgThreshold = 5 // NFULA_CFG_QTHRESH

	cmdBind    = 1 // NFULNL_CFG_CMD_BIND
	copyPacket = 2 // NFULNL_COPY_PACKET

	attrHeader  = 1  // NFULA_PACKET_HDR
	attrMark    = 2  // NFULA_MARK
	attrIn      = 4  // NFULA_IFINDEX_INDEV
	attrOut     = 5  // NFULA_IFINDEX_OUTDEV
	attrPayload = 9  // NFULA_PAYLOAD
	attrPrefix  = 10 // NFULA_PREFIX
	attrUID     = 11 // NFULA_UID
)

const headerSize = 4 // struct nfgenmsg

// configuration returns the messages that make a socket the listener of a group.
func configuration(group uint16) []netlink.Message {
	request := func(encode func(*netlink.AttributeEncoder)) netlink.Message {
		ae := netlink.NewAttributeEncoder()
		ae.ByteOrder = binary.BigEndian
		encode(ae)
		attributes, _ := ae.Encode() // fails on attributes of 64 KiB alone
		header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group >> 8), byte(group)}
		return netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_ULOG<<8 | msgConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(header, attributes...),
		}
	}
	return []netlink.Message{
		request(func(ae *netlink.AttributeEncoder) { ae.Bytes(cfgCmd, []byte{cmdBind}) }),
		request(func(ae *netlink.AttributeEncoder) {
			// struct nfulnl_msg_config_mode
			ae.Bytes(cfgMode, append(binary.BigEndian.AppendUint32(nil, headerRange), copyPacket, 0))
			ae.Uint32(cfgThreshold, queueThreshold)
			ae.Uint32(cfgTimeout, queueTimeout)
		}),
	}
}

// Packet is one logged packet.
type Packet struct {
	Prefix  string
	Mark    uint32 // skb->mark; 0 if it has none
	Hook    uint8  // NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, ...
	In, Out uint32 // indexes of interfaces; 0: none
	UID     uint32 // of who made the sending socket, if HasUID
	HasUID  bool
	// Payload is the packet from its network header on, as far as it is copied.
	Payload []byte
}

// parse reads a message; ok is false if it is none of a packet.
func parse(m netlink.Message) (p Packet, ok bool, err error) {
	if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|msgPacket || len(m.Data) < headerSize {
		return p, false, nil
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
	if err != nil {
		return p, false, fmt.Errorf("packet of nfnetlink_log: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case attrHeader: // struct nfulnl_msg_packet_hdr
			if b := ad.Bytes(); len(b) >= 3 {
				p.Hook = b[2]
			}
		case attrMark:
			p.Mark = ad.Uint32()
		case attrIn:
			p.In = ad.Uint32()
		case attrOut:
			p.Out = ad.Uint32()
		case attrPayload:
			p.Payload = ad.Bytes()
		case attrPrefix:
			p.Prefix = ad.String()
		case attrUID:
			p.UID, p.HasUID = ad.Uint32(), true
		}
	}
	if err := ad.Err(); err != nil {
		return p, false, fmt.Errorf("packet of nfnetlink_log: %w", err)
	}
	return p, true, nil
}
