package simulate

import (
	"encoding/binary"
	"net/netip"

	"github.com/sockns/sockns/nft"
)

// appendKey appends a value so that values that differ make keys that differ.
func appendKey(b []byte, v nft.Value) []byte {
	b = append(b, byte(v.Type))
	if v.Type == nft.TypeIPv4 || v.Type == nft.TypeIPv6 {
		return append(b, v.Addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint64(b, v.Num)
}

// keyOf reads a key from a packet; false if the packet lacks a field, which
// ends the rule.
func keyOf(fields []nft.Field, p *Packet) (string, bool) {
	b := make([]byte, 0, 64)
	for _, f := range fields {
		v, ok := valueOf(f, p)
		if !ok {
			return "", false
		}
		b = appendKey(b, v)
	}
	return string(b), true
}

func valueOf(f nft.Field, p *Packet) (nft.Value, bool) {
	v := nft.Value{Type: f.Type()}
	address := func(a netip.Addr, four bool) (nft.Value, bool) {
		v.Addr = a
		return v, a.Is4() == four
	}
	switch f.Kind {
	case nft.FieldPriority, nft.FieldMark:
		bits := p.Mark
		if f.Kind == nft.FieldPriority {
			bits = p.Priority
		}
		if f.Mask != 0 {
			bits &= f.Mask
		}
		v.Num = uint64(bits)
	case nft.FieldCgroup:
		// Level 0 would be the root, which no key of ours asks for.
		if f.Level == 0 || int(f.Level) > len(p.Cgroups) {
			return v, false
		}
		v.Num = p.Cgroups[f.Level-1]
	case nft.FieldL4Proto:
		v.Num = uint64(p.Protocol)
	case nft.FieldSource4:
		return address(p.Source.Addr(), true)
	case nft.FieldDest4:
		return address(p.Dest.Addr(), true)
	case nft.FieldSource6:
		return address(p.Source.Addr(), false)
	case nft.FieldDest6:
		return address(p.Dest.Addr(), false)
	case nft.FieldSport:
		v.Num = uint64(p.Source.Port())
	case nft.FieldIIF:
		v.Num = uint64(p.In)
	case nft.FieldDport:
		v.Num = uint64(p.Dest.Port())
	}
	return v, true
}
