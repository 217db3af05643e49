package compiler

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/sockns/sockns/nft"
)

// share names each policy by its content, so that namespaces with the same
// rules use the same chains. The name begins with the first namespace that
// has the policy, for the reader of nft list ruleset.
func share(r *resolver, spaces []*space, policies map[string]*chains) {
	names := make(map[[sha256.Size]byte]string) // by the digest of the content
	taken := make(map[string]bool)
	for _, s := range spaces {
		c := policies[s.source.Name]
		if c.name != "" {
			continue
		}
		text := content(c)
		if !r.passes.has(PassShare) {
			text = s.source.Name + "\n" + text
		}
		sum := sha256.Sum256([]byte(text))
		if names[sum] == "" {
			short := shortDigest
			for taken[hex.EncodeToString(sum[:short])] {
				short++ // another policy's digest begins like this one's
			}
			taken[hex.EncodeToString(sum[:short])] = true
			names[sum] = s.source.Name + "." + hex.EncodeToString(sum[:short])
		}
		c.name = names[sum]
		first, _, _ := strings.Cut(c.name, ".")
		rename(c, r.ids[first])
	}
}

// shortDigest is how many bytes of a digest identify a text in names and comments.
const shortDigest = 5

// content returns all that the kernel would do differently for another policy:
// comments are left out.
func content(c *chains) string {
	var b strings.Builder
	for _, chain := range c.list {
		b.WriteString(chain.Name)
		b.WriteByte('\n')
		for _, r := range chain.Rules {
			for _, s := range r.Statements {
				b.WriteString(s.String())
				b.WriteByte(' ')
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
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
func (c *chains) chain(part string) string { return c.name + "." + part }

// digest identifies a text: 40 bits of its SHA-256, in hexadecimal.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:shortDigest])
}
