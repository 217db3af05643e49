package learn

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sockns/sockns/events"
)

// Read adds events, a JSON object a line, as `sockns watch -o json` writes
// them. Those that are no decisions of the namespace are passed over.
func (c *Collection) Read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var e events.Event
		err := json.Unmarshal(lines.Bytes(), &e)
		if err == nil {
			err = c.Add(e)
		}
		if err != nil {
			return fmt.Errorf("line %d is no event as sockns watch -o json writes it: %w", n, err)
		}
	}
	return lines.Err()
}
