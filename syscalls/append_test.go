package syscalls

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestAppend holds the encoding of an entry against that of its type.
func TestAppend(t *testing.T) {
	e := Entry{First: Address{1, 2, 3, 4}, Last: Address{5, 6, 7, 8}, PortFirst: 9, PortLast: 10, Source: 11, Kind: 12, Protocols: 13, Needs: 14, Action: 15, Error: 16, Rule: 17, Tag: 18}
	var want bytes.Buffer
	if err := binary.Write(&want, binary.NativeEndian, e); err != nil {
		t.Fatal(err)
	}
	if got := e.Append(nil); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("% x, want % x", got, want.Bytes())
	}
}
