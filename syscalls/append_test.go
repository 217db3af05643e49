package syscalls

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestAppend holds the encoding of an entry against that of its type.
func TestAppend(t *testing.T) {
	e := Entry{First: Address{1, 2, 3, 4}, Last: Address{5, 6, 7, 8}, PortFirst: 9, PortLast: 10, Source: 11, Table: Span{12, 13}, Tag: 14, Error: 15, Rule: 16, Kind: 17, Protocols: 18, Needs: 19, Action: 20, Here: 21, Peer: 22}
	var want bytes.Buffer
	if err := binary.Write(&want, binary.NativeEndian, e); err != nil {
		t.Fatal(err)
	}
	if got := e.Append(nil); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("% x, want % x", got, want.Bytes())
	}
}
