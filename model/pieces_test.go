package model

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sockns/sockns/model/modeltest/golden"
)

// inPieces calls f while files are read in pieces of a size.
func inPieces(size int, f func()) {
	before := pieceSize
	pieceSize = size
	defer func() { pieceSize = before }()
	f()
}

// TestPieces reads files whole and in pieces as small as they come, which has to
// be the same.
func TestPieces(t *testing.T) {
	texts := map[string]string{}
	for name, data := range golden.Policies(t, "../examples/*.yaml", "testdata/broken/*.txtar", "../compiler/testdata/*.txtar") {
		texts[name] = string(data)
	}
	texts["head and tail"] = "# begin\napiVersion: sockns/v1\ngroups: {corp: [10.0.0.0/8]}\nsocketNamespaces:\n\n" + many(3) + "udpTimeout: 5s\nenforcement: {syscalls: auto}\n"
	texts["names indented by four"] = "apiVersion: sockns/v1\nsocketNamespaces:\n" + strings.ReplaceAll(many(3), "  ", "    ")
	texts["comments between"] = "apiVersion: sockns/v1\nsocketNamespaces:\n" + strings.ReplaceAll(many(3), "  n", "# about\n  # it\n\n  n")
	texts["twice"] = "apiVersion: sockns/v1\nsocketNamespaces:\n" + many(2) + many(1)
	texts["a list over several lines"] = "apiVersion: sockns/v1\nsocketNamespaces:\n  a: {members: [\n  {cgroup: /x},\n  {cgroup: /y}]}\n" + many(2)
	texts["a quote over several lines"] = "apiVersion: sockns/v1\nsocketNamespaces:\n  a: {members: [{cgroup: '/x\n  b: y'}]}\n" + many(2)
	texts["an alias of another piece"] = "apiVersion: sockns/v1\nsocketNamespaces:\n  a:\n    members: &m [{cgroup: /x}]\n  b:\n    members: *m\n"
	texts["the key twice"] = "apiVersion: sockns/v1\nsocketNamespaces:\n" + many(2) + "socketNamespaces:\n" + many(1)
	texts["two documents"] = "apiVersion: sockns/v1\nsocketNamespaces:\n" + many(2) + "---\napiVersion: sockns/v1\ngroups: {a: 10.0.0.1}\n"
	texts["no end of line"] = strings.TrimSuffix("apiVersion: sockns/v1\nsocketNamespaces:\n"+many(2), "\n")
	for name, text := range texts {
		files := []File{{Name: "before.yaml", Data: []byte("apiVersion: sockns/v1\ngroups: {lab: 192.0.2.1}\n")}, {Name: "policy.yaml", Data: []byte(text)}}
		whole, diagnostics := Parse(files)
		inPieces(1, func() {
			policy, again := Parse(files)
			if !reflect.DeepEqual(whole, policy) {
				t.Errorf("%s: another policy:\n%+v\n%+v", name, whole, policy)
			}
			if !reflect.DeepEqual(diagnostics, again) {
				t.Errorf("%s: other messages:\n%v\n%v", name, diagnostics, again)
			}
		})
	}
}

// TestLargeFilesAreReadInPieces fails if they are not, which would go unnoticed.
func TestLargeFilesAreReadInPieces(t *testing.T) {
	inPieces(100, func() {
		r := newReader(nil)
		if f := (File{Name: "policy.yaml", Data: []byte("apiVersion: sockns/v1\nsocketNamespaces:\n" + many(9))}); !r.open(f) || !r.pieces(f) {
			t.Error("the usual form is not divided")
		}
		if n := len(r.policy.SocketNamespaces); n != 9 {
			t.Errorf("%d namespaces", n)
		}
	})
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  n%d:\n    members: [{cgroup: /n%d}]\n    connect:\n      - {protocol: tcp, ports: \"80-%d\", to: any} # all\n", i, i, 81+i)
	}
	return b.String()
}
