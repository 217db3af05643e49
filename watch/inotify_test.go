package watch

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// event encodes a struct inotify_event; the kernel pads names with zeros.
func event(watch int32, mask uint32, name string) []byte {
	padded := make([]byte, (len(name)+15)/16*16)
	copy(padded, name)
	b := binary.NativeEndian.AppendUint32(nil, uint32(watch))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(padded)))
	return append(b, padded...)
}

func TestParseNotices(t *testing.T) {
	join := func(events ...[]byte) (b []byte) {
		for _, e := range events {
			b = append(b, e...)
		}
		return b
	}
	one := event(1, unix.IN_CREATE|unix.IN_ISDIR, "web")
	for name, test := range map[string]struct {
		bytes []byte
		want  []notice
	}{
		"none":               {nil, nil},
		"one":                {one, []notice{{1, unix.IN_CREATE | unix.IN_ISDIR, "web"}}},
		"without a name":     {event(7, unix.IN_IGNORED, ""), []notice{{7, unix.IN_IGNORED, ""}}},
		"overflow":           {join(one, event(-1, unix.IN_Q_OVERFLOW, "")), []notice{{1, unix.IN_CREATE | unix.IN_ISDIR, "web"}, {-1, unix.IN_Q_OVERFLOW, ""}}},
		"name without zeros": {event(1, unix.IN_DELETE, "sixteen-letters!"), []notice{{1, unix.IN_DELETE, "sixteen-letters!"}}},
		"cut off":            {one[:len(one)-1], nil},
		"header cut off":     {join(one, one[:10]), []notice{{1, unix.IN_CREATE | unix.IN_ISDIR, "web"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []notice
			parseNotices(test.bytes, func(n notice) { got = append(got, n) })
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(notice{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
