package learn

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/sockns/sockns/model"
)

// decision is an event as `sockns watch -o json` writes it.
type decision struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"`
	Namespace string    `json:"socketNamespace"`
	Lost      uint64    `json:"lost"`
	Decided   *struct {
		Hook        string         `json:"hook"`
		Protocol    model.Protocol `json:"protocol"`
		Source      netip.AddrPort `json:"source"`
		Destination netip.AddrPort `json:"destination"`
		Peer        string         `json:"peer"`
		OneOf       []string       `json:"oneOf"`
		Count       uint64         `json:"count"`
		Since       time.Time      `json:"since"`
		Unreported  uint64         `json:"unreported"`
	} `json:"decided"`
}

// Read adds events, a JSON object a line, as `sockns watch -o json` writes
// them. Those that are no decisions of the namespace are passed over.
func (c *Collection) Read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var d decision
		err := json.Unmarshal(lines.Bytes(), &d)
		if err == nil {
			err = c.Add(d)
		}
		if err != nil {
			return fmt.Errorf("line %d is no event as sockns watch -o json writes it: %w", n, err)
		}
	}
	return lines.Err()
}
