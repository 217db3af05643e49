package compiler

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// mostApart is how many namespaces, templates once, have chains of their own,
// and so counters of their own, although others have the same rules. More of
// them share: chains cost memory and time at each commit that adds an element.
const mostApart = 128

// many reports whether namespaces with the same rules share their chains.
func many(spaces []*space) bool {
	sources := make(map[string]bool)
	for _, s := range spaces {
		if sources[s.source.Name] = true; len(sources) > mostApart {
			return true
		}
	}
	return false
}

// share names each policy by its content, so that what changes gets other
// chains, and, where they are shared, namespaces with the same rules use the
// same. What the sets of groups hold is left out: a group that changes has the
// chains that name it written anew in place, which packets see at once, too. The
// name begins with the namespace that has the policy, for the reader of nft list
// ruleset, or with [sharedOwner] where policies are shared: it stays when the first
// of those that have it goes.
func share(r *resolver, spaces []*space, policies map[string]*chains) {
	names := make(map[[sha256.Size]byte]string)  // by the digest of the content, if they are shared
	firsts := make(map[[sha256.Size]byte]uint32) // identities of those that have it first
	taken := make(map[string]bool)
	type naming struct {
		c     *chains
		first uint32
	}
	var named []naming
	for _, s := range spaces {
		c := policies[s.source.Name]
		if c.name != "" {
			continue
		}
		sum := c.form
		if names[sum] == "" || !r.passes.has(PassShare) {
			short := shortDigest
			for r.passes.has(PassShare) && taken[hex.EncodeToString(sum[:short])] {
				short++ // another policy's digest begins like this one's
			}
			taken[hex.EncodeToString(sum[:short])] = true
			owner := s.source.Name
			if r.passes.has(PassShare) {
				owner = sharedOwner
			}
			firsts[sum] = r.ids[s.source.Name]
			names[sum] = owner + "." + hex.EncodeToString(sum[:short])
		}
		c.name = names[sum]
		named = append(named, naming{c, firsts[sum]})
	}
	onAll(len(named), func(i int) { rename(named[i].c, named[i].first) })
}

// sharedOwner begins the names of policies that may be shared.
const sharedOwner = "shared"

// shortDigest is how many bytes of a digest identify a text in names and comments.
const shortDigest = 5

// appendContent appends all that the kernel would do differently for another
// policy: comments are left out. A set that holds the list of a group is known
// by that.
func appendContent(b []byte, c *chains, groups map[string]string) []byte {
	for _, chain := range c.list {
		b = appendText(b, chain.Name)
		b = binary.AppendUvarint(b, uint64(len(chain.Rules)))
		for i := range chain.Rules {
			b = append(b, byte(len(chain.Rules[i].Statements)))
			for _, s := range chain.Rules[i].Statements {
				if m, ok := s.(nft.MatchSet); ok && groups[m.Set] != "" {
					kind, _, _ := strings.Cut(m.Set, "_")
					m.Set = kind + " of " + groups[m.Set]
					s = m
				}
				b = appendStatement(b, s)
			}
		}
	}
	return b
}

// appendStatement writes the statements that policies are full of without the
// detour of text.
func appendStatement(b []byte, s nft.Statement) []byte {
	switch s := s.(type) {
	case nft.MatchMeta:
		b = append(b, 'm', byte(s.Key), bit(s.Not))
		return binary.AppendUvarint(b, uint64(s.Value))
	case nft.MatchPort:
		b = append(b, 'p', s.Protocol, bit(s.Source))
		b = binary.BigEndian.AppendUint16(b, s.First)
		return binary.BigEndian.AppendUint16(b, s.Last)
	case nft.MatchAddress:
		b = append(b, 'a', bit(s.Source), bit(s.Not))
		return appendRange(b, model.AddressRange{First: s.First, Last: s.Last})
	case nft.Verdict:
		return appendText(append(b, 'v', byte(s.Kind)), s.Chain)
	case nft.Counter:
		return append(b, 'c')
	case nft.SetMark:
		return binary.AppendUvarint(append(b, 'k'), uint64(s.Value))
	}
	return appendText(append(b, 's'), s.String())
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// rename puts the policy's name before the relative names of its chains, and
// the identity of the first namespace that has it where a refusal names the policy.
func rename(c *chains, first uint32) {
	own := make(map[string]bool, len(c.list))
	for _, chain := range c.list {
		own[chain.Name] = true
	}
	for _, chain := range c.list {
		chain.Name = c.chain(chain.Name)
		for _, r := range chain.Rules {
			for i, s := range r.Statements {
				switch s := s.(type) {
				case nft.Verdict:
					if own[s.Chain] {
						s.Chain = c.chain(s.Chain)
						r.Statements[i] = s
					}
				case nft.SetMark:
					r.Statements[i] = nft.SetMark{Value: first}
				}
			}
		}
	}
}

// chain returns the full name of the policy's chain.
func (c *chains) chain(part string) string { return chainName(c.name, part) }

func chainName(policy, part string) string { return policy + "." + part }

// digest identifies a text: 40 bits of its SHA-256, in hexadecimal.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:shortDigest])
}
