package model

import "testing"

// Separators with nothing between them, as tools that join files write them.
func TestEmptyDocuments(t *testing.T) {
	const policy = "apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{cgroup: /a}]}}\n"
	for _, text := range []string{policy + "---\n", "---\n# head\n---\n" + policy, policy + "---\n# end\n...\n"} {
		p, found := Parse([]File{{"policy.yaml", []byte(text)}})
		if len(found) > 0 || len(p.SocketNamespaces) != 1 {
			t.Errorf("%q: %v", text, found)
		}
	}
}
