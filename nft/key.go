package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// appendValue appends a value as the kernel holds it, without padding.
func appendValue(b []byte, v Value) []byte {
	switch v.Type {
	case TypeCgroup:
		return binary.NativeEndian.AppendUint64(b, v.Num)
	case TypeClassID, TypeMark:
		return binary.NativeEndian.AppendUint32(b, uint32(v.Num))
	case TypeIPv4, TypeIPv6:
		return append(b, v.Addr.AsSlice()...)
	case TypeInetProto:
		return append(b, uint8(v.Num))
	case TypeInetService:
		return binary.BigEndian.AppendUint16(b, uint16(v.Num))
	}
	return b
}

// appendKey appends a key: a single value as it is, those of a concatenation
// padded to registers of four bytes.
func appendKey(b []byte, key []Value) []byte {
	if len(key) == 1 {
		return appendValue(b, key[0])
	}
	start := len(b)
	for _, v := range key {
		b = appendValue(b, v)
		for (len(b)-start)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// check says why v can't be a value of type t.
func (v Value) check(t Type) error {
	if v.Type != t {
		return fmt.Errorf("%s where a %s is due", v.Type, t)
	}
	limit := uint64(0)
	switch t {
	case TypeCgroup:
		return nil
	case TypeClassID, TypeMark:
		limit = 1<<32 - 1
	case TypeInetProto:
		limit = 1<<8 - 1
	case TypeInetService:
		limit = 1<<16 - 1
	case TypeIPv4:
		if !v.Addr.Is4() {
			return fmt.Errorf("%s is no IPv4 address", v.Addr)
		}
		return nil
	case TypeIPv6:
		if !v.Addr.Is6() || v.Addr.Zone() != "" {
			return fmt.Errorf("%s is no IPv6 address", v.Addr)
		}
		return nil
	default:
		return fmt.Errorf("%s is no type of a value", t)
	}
	if v.Num > limit {
		return fmt.Errorf("%d is no %s", v.Num, t)
	}
	return nil
}

// readValue reads a value of type t from the front of b, and returns its length.
func readValue(b []byte, t Type) (Value, int, bool) {
	info, ok := t.info()
	if !ok || t == TypeVerdict || len(b) < info.size {
		return Value{}, 0, false
	}
	v := Value{Type: t}
	switch t {
	case TypeCgroup:
		v.Num = binary.NativeEndian.Uint64(b)
	case TypeClassID, TypeMark:
		v.Num = uint64(binary.NativeEndian.Uint32(b))
	case TypeIPv4, TypeIPv6:
		v.Addr, _ = netip.AddrFromSlice(b[:info.size])
	case TypeInetProto:
		v.Num = uint64(b[0])
	case TypeInetService:
		v.Num = uint64(binary.BigEndian.Uint16(b))
	}
	return v, info.size, true
}

// readKey reads a key of the types from b, all of it.
func readKey(b []byte, types []Type) ([]Value, bool) {
	if len(types) == 1 {
		v, n, ok := readValue(b, types[0])
		return []Value{v}, ok && n == len(b)
	}
	key := make([]Value, len(types))
	for i, t := range types {
		v, n, ok := readValue(b, t)
		if !ok {
			return nil, false
		}
		key[i] = v
		b = b[min(words(n)*4, len(b)):]
	}
	return key, len(b) == 0
}

// keySize returns the length of a key in the kernel.
func keySize(types []Type) (int, error) {
	if len(types) == 0 {
		return 0, fmt.Errorf("no type of key")
	}
	size := 0
	for _, t := range types {
		info, ok := t.info()
		if !ok || t == TypeVerdict {
			return 0, fmt.Errorf("%s is no type of a key", t)
		}
		if len(types) == 1 {
			return info.size, nil
		}
		size += words(info.size) * 4
	}
	if size > maxKeyWords*4 || len(types) > maxKeyFields {
		return 0, fmt.Errorf("key is too long")
	}
	return size, nil
}

// A concatenation's type is the types of its fields, six bits each (TYPE_BITS
// in nftables' include/datatype.h).
const (
	typeBits     = 6
	maxKeyFields = 32 / typeBits
)

// keyType returns nft(8)'s number of a key's type.
func keyType(types []Type) uint32 {
	id := uint32(0)
	for _, t := range types {
		info, _ := t.info()
		id = id<<typeBits | info.id
	}
	return id
}

// readKeyType is the inverse of keyType; nil for types not in use here.
func readKeyType(id uint32) []Type {
	var types []Type
	for ; id != 0; id >>= typeBits {
		t := typeByID(id & (1<<typeBits - 1))
		if t == TypeNone || t == TypeVerdict {
			return nil
		}
		types = append([]Type{t}, types...)
	}
	return types
}

// hostBigEndian is whether the machine writes numbers from their big end.
var hostBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1
