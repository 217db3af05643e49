package compiler

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"

	"github.com/sockns/sockns/model"
)

// lowerPolicies lowers the rules of each namespace and template, those that
// say the same once if they share: it is most of the work where thousands share
// few policies.
func lowerPolicies(r *resolver, spaces []*space) map[string]*chains {
	policies := make(map[string]*chains, len(spaces)) // by the name of the namespace or template
	alike := make(map[[sha256.Size]byte]*chains)      // by what they say
	var work []job
	var key []byte
	for _, s := range spaces {
		n := s.source
		if policies[n.Name] != nil {
			continue
		}
		if r.passes.has(PassAlike) && r.passes.has(PassShare) {
			key = appendSaid(key[:0], n)
		} else {
			key = append(key[:0], n.Name...)
		}
		sum := sha256.Sum256(key)
		c := alike[sum]
		if c == nil {
			c = &chains{}
			alike[sum] = c
			work = append(work, job{n, c})
		}
		policies[n.Name] = c
	}
	lowerAll(r, work)
	return policies
}

// job is a policy to be lowered.
type job struct {
	n *model.SocketNamespace
	c *chains
}

// lowerAll lowers policies, which know nothing of one another.
func lowerAll(r *resolver, work []job) {
	onAll(len(work), func(i int) { *work[i].c = *lowerPolicy(r, work[i].n) })
}

// onAll calls do for 0 to n-1, on all processors.
func onAll(n int, do func(i int)) {
	const least = 64 // that are worth a goroutine
	workers := min(runtime.GOMAXPROCS(0), 1+n/least)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	group.Wait()
}

// appendSaid appends all that the chains of a namespace follow from, but for
// what is the same for all namespaces of the policy. Where rules are written is
// left out: it is in comments, and those are the first namespace's.
func appendSaid(b []byte, n *model.SocketNamespace) []byte {
	b = appendText(b, string(n.Mode))
	b = appendRanges(b, n.Addresses)
	named := n.Mode == model.Audit // its name is in lines of the log, or in its rules
	for _, h := range model.Hooks {
		rules := n.Rules(h)
		b = binary.AppendUvarint(b, uint64(len(rules)))
		for i := range rules {
			r := &rules[i]
			b = appendRule(b, r)
			named = named || r.Log || r.Audit || names(r.Local, n.Name) || names(r.Peers, n.Name)
		}
		if d := n.Default.For(h); d != nil {
			b = appendText(b, string(d.Action))
			b = appendText(b, string(d.Error))
		} else {
			b = appendText(b, "silent")
		}
	}
	if named {
		b = appendText(b, n.Name)
	}
	return b
}

func names(peers []model.Peer, name string) bool {
	for i := range peers {
		if peers[i].Name == name {
			return true
		}
	}
	return false
}

func appendRule(b []byte, r *model.Rule) []byte {
	b = appendText(b, string(r.Action))
	b = appendText(b, string(r.Error))
	b = binary.AppendUvarint(b, uint64(len(r.Protocols)))
	for _, p := range r.Protocols {
		b = appendText(b, string(p))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Ports)))
	for _, p := range r.Ports {
		b = binary.BigEndian.AppendUint16(b, p.First)
		b = binary.BigEndian.AppendUint16(b, p.Last)
	}
	b = appendPeers(b, r.Local)
	b = appendPeers(b, r.Peers)
	flags := byte(0)
	if r.Log {
		flags |= 1
	}
	if r.Audit {
		flags |= 2
	}
	return append(b, flags)
}

func appendPeers(b []byte, peers []model.Peer) []byte {
	b = binary.AppendUvarint(b, uint64(len(peers)))
	for i := range peers {
		p := &peers[i]
		b = append(b, byte(p.Kind))
		b = appendText(b, p.Name)
		if p.Kind == model.PeerAddress {
			b = appendRange(b, p.Address)
		}
	}
	return b
}

func appendRanges(b []byte, ranges []model.AddressRange) []byte {
	b = binary.AppendUvarint(b, uint64(len(ranges)))
	for _, r := range ranges {
		b = appendRange(b, r)
	}
	return b
}

func appendRange(b []byte, r model.AddressRange) []byte {
	first, last := r.First.As16(), r.Last.As16()
	b = append(b, byte(r.First.BitLen()))
	b = append(b, first[:]...)
	return append(b, last[:]...)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
