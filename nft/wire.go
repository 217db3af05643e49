package nft

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// wire is a buffer of netlink messages being written. Attributes go straight
// into it, and lengths are filled in when what they measure is complete: a
// batch of 90,000 rules is one buffer and no garbage.
type wire struct {
	b     []byte
	small bool // an attribute grew beyond what its 16 bits of length can hold
}

// message starts a message of nfnetlink and returns its place for end.
func (w *wire) message(typ uint16, flags uint16, seq uint32, family uint8, resID uint16) int {
	at := len(w.b)
	w.b = append(w.b, 0, 0, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	w.b = binary.NativeEndian.AppendUint16(w.b, flags|unix.NLM_F_REQUEST)
	w.b = binary.NativeEndian.AppendUint32(w.b, seq)
	w.b = append(w.b, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
	w.b = binary.BigEndian.AppendUint16(w.b, resID)
	return at
}

// end completes the message.
func (w *wire) end(at int) {
	binary.NativeEndian.PutUint32(w.b[at:], uint32(len(w.b)-at))
}

// nest starts an attribute of attributes and returns its place for unnest.
func (w *wire) nest(typ uint16) int { return w.open(typ | unix.NLA_F_NESTED) }

func (w *wire) open(typ uint16) int {
	at := len(w.b)
	w.b = append(w.b, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	return at
}

// unnest completes the attribute.
func (w *wire) unnest(at int) {
	n := len(w.b) - at
	if n > 0xffff {
		w.small = true
	}
	binary.NativeEndian.PutUint16(w.b[at:], uint16(n))
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *wire) bytes(typ uint16, data []byte) {
	at := w.open(typ)
	w.b = append(w.b, data...)
	w.unnest(at)
}

func (w *wire) u8(typ uint16, v uint8) {
	at := w.open(typ)
	w.b = append(w.b, v)
	w.unnest(at)
}

func (w *wire) u16(typ uint16, v uint16) {
	at := w.open(typ)
	w.b = binary.BigEndian.AppendUint16(w.b, v)
	w.unnest(at)
}

func (w *wire) u32(typ uint16, v uint32) {
	w.b = append(w.b, 0, 0, 0, 0, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	at := len(w.b) - 8
	binary.NativeEndian.PutUint16(w.b[at:], 8)
	binary.NativeEndian.PutUint16(w.b[at+2:], typ)
}

func (w *wire) u64(typ uint16, v uint64) {
	at := w.open(typ)
	w.b = binary.BigEndian.AppendUint64(w.b, v)
	w.unnest(at)
}

func (w *wire) str(typ uint16, s string) {
	at := w.open(typ)
	w.b = append(w.b, s...)
	w.b = append(w.b, 0)
	w.unnest(at)
}

// value writes nested NFTA_DATA_VALUE, the way the kernel takes data.
func (w *wire) value(typ uint16, data []byte) {
	at := w.nest(typ)
	w.bytes(unix.NFTA_DATA_VALUE, data)
	w.unnest(at)
}

// verdict writes nested NFTA_DATA_VERDICT.
func (w *wire) verdict(typ uint16, code int32, chain string) {
	at := w.nest(typ)
	in := w.nest(unix.NFTA_DATA_VERDICT)
	w.u32(unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		w.str(unix.NFTA_VERDICT_CHAIN, chain)
	}
	w.unnest(in)
	w.unnest(at)
}

// comment writes user data with a comment under the number that the object's
// kind has for it (libnftnl/udata.h).
func (w *wire) comment(typ uint16, udata uint8, s string) {
	if s == "" {
		return
	}
	at := w.open(typ)
	w.udataComment(udata, s)
	w.unnest(at)
}

// udataComment writes the entry of user data alone.
func (w *wire) udataComment(udata uint8, s string) {
	w.b = append(w.b, udata, uint8(len(s)+1))
	w.b = append(w.b, s...)
	w.b = append(w.b, 0)
}

// errMalformed is the error of a message that breaks off or lies about lengths.
var errMalformed = errors.New("nft: malformed netlink message")

// attrs reads attributes one after another, and remembers if they broke off.
type attrs struct {
	rest []byte
	typ  uint16
	data []byte
	bad  bool
}

// next goes to the next attribute.
func (a *attrs) next() bool {
	if len(a.rest) < 4 {
		a.bad = a.bad || len(a.rest) != 0
		return false
	}
	n := int(binary.NativeEndian.Uint16(a.rest))
	if n < 4 || n > len(a.rest) {
		a.bad = true
		return false
	}
	a.typ = binary.NativeEndian.Uint16(a.rest[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	a.data = a.rest[4:n]
	a.rest = a.rest[min((n+3)&^3, len(a.rest)):]
	return true
}

// nested returns a reader of the attribute's attributes.
func (a *attrs) nested() attrs { return attrs{rest: a.data} }

func (a *attrs) u8() uint8 {
	if len(a.data) < 1 {
		a.bad = true
		return 0
	}
	return a.data[0]
}

func (a *attrs) u16() uint16 {
	if len(a.data) < 2 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint16(a.data)
}

func (a *attrs) u32() uint32 {
	if len(a.data) < 4 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint32(a.data)
}

func (a *attrs) u64() uint64 {
	if len(a.data) < 8 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint64(a.data)
}

// str returns a string without the zero at its end.
func (a *attrs) str() string { return string(a.chars()) }

// chars returns the bytes of a string. They are those of the message.
func (a *attrs) chars() []byte {
	chars, _, _ := bytes.Cut(a.data, []byte{0})
	return chars
}

// value returns the data of a nested NFTA_DATA_VALUE, nil if there is none.
func (a *attrs) value() []byte {
	in := a.nested()
	for in.next() {
		if in.typ == unix.NFTA_DATA_VALUE {
			return in.data
		}
	}
	a.bad = a.bad || in.bad
	return nil
}

// verdict returns the contents of a nested NFTA_DATA_VERDICT.
func (a *attrs) verdict() (code int32, chain string, ok bool) {
	in := a.nested()
	for in.next() {
		if in.typ != unix.NFTA_DATA_VERDICT {
			continue
		}
		v := in.nested()
		for v.next() {
			switch v.typ {
			case unix.NFTA_VERDICT_CODE:
				code, ok = int32(v.u32()), true
			case unix.NFTA_VERDICT_CHAIN:
				chain = v.str()
			}
		}
		in.bad = in.bad || v.bad
	}
	a.bad = a.bad || in.bad
	return code, chain, ok
}

// comment returns the comment in user data, "" if there is none.
func (a *attrs) comment(udata uint8) string {
	for b := a.data; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if b[0] == udata {
			in := attrs{data: b[2 : 2+int(b[1])]}
			return in.str()
		}
	}
	return ""
}
