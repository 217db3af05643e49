package compiler

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/sockns/sockns/model"
)

// census counts the lists of a policy that may get sets. Every compilation takes
// it, those too that compile one rule anew, so it looks at what is written alone.
type census struct {
	groups map[string][]model.AddressRange
	sizes  map[uint64]int // how long each is, by a digest of what it says
}

func (c *census) rule(r *model.Rule) {
	if len(r.Ports) >= fewest {
		b := make([]byte, 0, 4*len(r.Ports))
		for _, p := range r.Ports {
			b = binary.BigEndian.AppendUint16(b, p.First)
			b = binary.BigEndian.AppendUint16(b, p.Last)
		}
		c.count(b, len(r.Ports))
	}
	for _, peers := range [...][]model.Peer{r.Peers, r.Local} {
		literal := 0
		for i := range peers {
			switch peers[i].Kind {
			case model.PeerAddress:
				literal++
			case model.PeerGroup:
				if n := len(c.groups[peers[i].Name]); n >= fewest {
					c.count(appendText([]byte("group "), peers[i].Name), n)
				}
			}
		}
		if literal < fewest {
			continue
		}
		b := make([]byte, 0, 33*literal)
		for i := range peers {
			if peers[i].Kind == model.PeerAddress {
				b = appendRange(b, peers[i].Address)
			}
		}
		c.count(b, literal)
	}
}

func (c *census) count(said []byte, n int) {
	h := fnv.New64a()
	h.Write(said)
	c.sizes[h.Sum64()] = n
}
