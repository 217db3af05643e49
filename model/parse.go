package model

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// File is the text of one policy file. Name is how diagnostics call it.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// The bounds of what is read. A policy of 10,000 namespaces has about 10 MB.
const (
	maxFileSize  = 64 << 20
	maxDocuments = 1000
	maxDepth     = 12 // of mappings and lists; the language itself nests 7 deep
)

// Parse reads a policy from the text of its files, which add up, and checks
// it. All mistakes are reported. If one of them is an error the policy is not
// to be used; it is returned all the same, with what could be understood.
func Parse(files []File) (*Policy, Diagnostics) {
	p, diags, _ := Reparse(files, nil)
	return p, diags
}

// reader reads one file of a policy, or checks them all.
type reader struct {
	reporter
	policy     *Policy
	name       string     // of the file being read
	budget     int        // nodes that may be visited yet: aliases can't expand without bound
	devices    []declared // names of device namespaces
	names      []declared // names of groups and socket namespaces
	once       []once
	deviceRefs []deviceRef
	explained  map[*yaml.Node]bool // unknown keys that a better message speaks of
	inPieces   func() *yaml.Node   // the socket namespaces of the file, if it is read in pieces
}

// declared is a name where it is given. That somebody else has it is found out
// when all files are read.
type declared struct {
	name  string
	pos   Position
	group bool // of a group; of a socket namespace otherwise
}

// once is a key that may be given once in all files, and what is said there.
type once struct {
	name string
	pos  Position
	said Policy
	list Diagnostics // about what is said there
}

func newReader(files []File) *reader {
	r := &reader{
		reporter:  reporter{files: make(map[string]int)},
		policy:    &Policy{},
		explained: make(map[*yaml.Node]bool),
	}
	for i, f := range files {
		r.reporter.files[f.Name] = i
	}
	return r
}

// anything reports whether anything is wrong so far.
func (r *reader) anything() bool {
	return len(r.list) > 0 || slices.ContainsFunc(r.once, func(o once) bool { return len(o.list) > 0 })
}

// HasErrors reports whether an error was found so far.
func (r *reader) HasErrors() bool { return r.list.HasErrors() }

func (r *reader) file(f File) {
	start := Position{f.Name, 1, 1}
	if !r.open(f) || r.pieces(f) {
		return
	}
	d := yaml.NewDecoder(bytes.NewReader(f.Data))
	written := 0 // documents that hold something
	for n := 0; ; n++ {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			if written == 0 {
				r.errorf(start, "the file is empty: a policy begins with apiVersion: %s", APIVersion)
			}
			return
		}
		if err != nil {
			r.syntax(f, d, err)
			return
		}
		if n == maxDocuments {
			r.errorf(r.at(&doc), "more than %d documents in one file: split it", maxDocuments)
			return
		}
		if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
			written++
			r.document(doc.Content[0])
		}
	}
}

// open begins a file and reports whether it is to be read.
func (r *reader) open(f File) bool {
	r.name = f.Name
	// Visits beyond the size of the text can only come from aliases.
	r.budget = 1000 + 4*len(f.Data)
	if len(f.Data) > maxFileSize {
		r.errorf(Position{f.Name, 1, 1}, "the file has %d bytes; a policy file has at most %d: split it", len(f.Data), maxFileSize)
		return false
	}
	return r.readable(f)
}

func (r *reader) at(n *yaml.Node) Position { return Position{r.name, max(n.Line, 1), max(n.Column, 1)} }

// node follows aliases; nil if they lead too far.
func (r *reader) node(n *yaml.Node) *yaml.Node {
	r.budget--
	if r.budget == 0 {
		r.errorf(r.at(n), "aliases expand to far more than the file holds: write out what they stand for")
	}
	if r.budget <= 0 {
		return nil
	}
	for hops := 0; n.Kind == yaml.AliasNode; hops++ {
		if hops > maxDepth {
			return nil
		}
		n = n.Alias
	}
	return n
}

// kind names what a node is, for messages.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		return strconv.Quote(n.Value)
	}
	return "something else"
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// mapping visits the entries of a mapping, whose keys are free names.
func (r *reader) mapping(n *yaml.Node, what string, visit func(k, v *yaml.Node)) {
	if n = r.node(n); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.errorf(r.at(n), "%s is %s; it has to be a mapping (key: value)", what, kind(n))
		return
	}
	seen := seenKeys(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := r.node(n.Content[i]), n.Content[i+1]
		if k == nil {
			return
		}
		if k.Kind != yaml.ScalarNode {
			r.errorf(r.at(k), "%s is a key of %s; a key is a word", kind(k), what)
			continue
		}
		if first := seen(k); first != nil {
			r.errorf(r.at(k), "key %q is there twice in %s, first at %s: keep one", k.Value, what, r.at(first))
			continue
		}
		visit(k, v)
	}
}

// seenKeys returns a function that returns the key of a mapping that said the
// same before, if there is one.
func seenKeys(n *yaml.Node) func(k *yaml.Node) *yaml.Node {
	const few = 16
	if len(n.Content) > 2*few {
		seen := make(map[string]*yaml.Node, len(n.Content)/2)
		return func(k *yaml.Node) *yaml.Node {
			first := seen[k.Value]
			if first == nil {
				seen[k.Value] = k
			}
			return first
		}
	}
	var room [few]*yaml.Node
	seen := room[:0]
	return func(k *yaml.Node) *yaml.Node {
		for _, s := range seen {
			if s.Value == k.Value {
				return s
			}
		}
		seen = append(seen, k)
		return nil
	}
}

// fields visits the entries of a mapping whose keys the language knows.
func (r *reader) fields(n *yaml.Node, what string, keys []key, visit func(name string, k, v *yaml.Node)) {
	r.mapping(n, what, func(k, v *yaml.Node) {
		for i := range keys {
			if keys[i].name == k.Value {
				visit(keys[i].name, k, v)
				return
			}
		}
		if r.explained[k] {
			return
		}
		if k.Value == "<<" {
			r.errorf(r.at(k), "merge key <<: the language has none; an alias (*name) stands for a whole value, write out the rest")
			return
		}
		allowed := keyNames(keys)
		r.errorf(r.at(k), "unknown key %q in %s%s (allowed: %s)", k.Value, what, suggest(k.Value, allowed), oneOf(allowed))
	})
}

// items returns the entries of a list, or the node itself if it is none and
// single is set.
func (r *reader) items(n *yaml.Node, what string, single bool) []*yaml.Node {
	if n = r.node(n); n == nil {
		return nil
	}
	switch {
	case n.Kind == yaml.SequenceNode:
		if len(n.Content) == 0 {
			r.errorf(r.at(n), "%s is an empty list: leave the key out, or fill it", what)
		}
		return n.Content
	case single && n.Kind == yaml.ScalarNode && !isNull(n):
		return []*yaml.Node{n}
	}
	if single {
		r.errorf(r.at(n), "%s is %s; it has to be one or a list", what, kind(n))
	} else {
		r.errorf(r.at(n), "%s is %s; it has to be a list", what, kind(n))
	}
	return nil
}

// text returns the value of a scalar.
func (r *reader) text(n *yaml.Node, what string) (string, bool) {
	if n = r.node(n); n == nil {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || isNull(n) || n.Value == "" {
		r.errorf(r.at(n), "%s is %s; it has to be a word", what, kind(n))
		return "", false
	}
	return n.Value, true
}

// word returns the value of a scalar that is one of the allowed words.
func (r *reader) word(n *yaml.Node, what string, allowed ...string) (string, bool) {
	s, ok := r.text(n, what)
	if !ok {
		return "", false
	}
	for _, a := range allowed {
		if s == a {
			return a, true // not s, which is memory of each place
		}
	}
	r.errorf(r.at(n), "%s is %q%s (allowed: %s)", what, s, suggest(s, allowed), oneOf(allowed))
	return "", false
}

func (r *reader) document(n *yaml.Node) {
	var version *yaml.Node
	r.fields(n, "a policy", policyKeys, func(name string, k, v *yaml.Node) {
		switch name {
		case "apiVersion":
			version = k
			r.word(v, "apiVersion", APIVersion)
		case "deviceNamespaces":
			r.mapping(v, name, r.device)
		case "groups":
			r.mapping(v, name, r.group)
		case "socketNamespaces":
			if r.inPieces == nil {
				r.mapping(v, name, r.namespace)
				return
			}
			for n := r.inPieces(); n != nil && !r.HasErrors(); n = r.inPieces() {
				r.mapping(n, name, r.namespace)
			}
		case "udpTimeout":
			r.single(name, k, func() { r.udpTimeout(v) })
		case "enforcement":
			r.single(name, k, func() { r.enforcement(v) })
		case "tests":
			r.policy.Tests = append(r.policy.Tests, r.tests(v)...)
		}
	})
	if n = r.node(n); n != nil && n.Kind == yaml.MappingNode && version == nil {
		r.errorf(r.at(n), "apiVersion is missing: a policy begins with apiVersion: %s", APIVersion)
	}
}

// single reads what is below a key that may be given once in all files.
func (r *reader) single(name string, k *yaml.Node, read func()) {
	o := once{name: name, pos: r.at(k)}
	policy, list := r.policy, r.list
	r.policy, r.list = &o.said, nil
	read()
	o.list = r.list
	r.policy, r.list = policy, list
	r.once = append(r.once, o)
}

// namePattern is the form of a name, for the schema.
const namePattern = `^[a-z][a-z0-9-]*$`

// isName reports whether a word has the form of a name.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || (c < '0' || c > '9') && c != '-') {
			return false
		}
	}
	return s != ""
}

const maxNameLength = 63

// reserved are the words that peers have a meaning for.
var reserved = []string{"any", "self", "unmanaged"}

// checkName checks the form of a name.
func (r *reader) checkName(k *yaml.Node, what string) bool {
	name, pos := k.Value, r.at(k)
	for _, w := range reserved {
		if name == w {
			r.errorf(pos, "%q can't be the name of a %s: the word is reserved for peers; choose another name", name, what)
			return false
		}
	}
	if !isName(name) || len(name) > maxNameLength {
		r.errorf(pos, "%q can't be the name of a %s: a name has a-z, 0-9 and -, begins with a letter and has at most %d characters", name, what, maxNameLength)
		return false
	}
	return true
}

func (r *reader) device(k, v *yaml.Node) {
	if k.Value == HostDevice {
		if v = r.node(v); v != nil && !isNull(v) && (v.Kind != yaml.MappingNode || len(v.Content) > 0) {
			r.errorf(r.at(v), "host is the network namespace that sockns is started in and has no keys: write host: {}")
		}
		return
	}
	ok := r.checkName(k, "device namespace")
	if ok {
		r.devices = append(r.devices, declared{name: k.Value, pos: r.at(k)})
	}
	d := DeviceNamespace{Name: k.Value, Pos: r.at(k)}
	r.fields(v, "a device namespace", deviceKeys, func(name string, fk, fv *yaml.Node) {
		s, valid := r.text(fv, name)
		switch {
		case !valid:
			ok = false
		case d.Path != "":
			r.errorf(r.at(fk), "device namespace %s has both netns and path: keep one", d.Name)
			ok = false
		case name == "netns" && (strings.ContainsAny(s, "/\x00") || s == "." || s == ".."):
			r.errorf(r.at(fv), "netns is %q; it has to be a name in /run/netns: for a file write path", s)
			ok = false
		case name == "path" && (!strings.HasPrefix(s, "/") || strings.Contains(s, "\x00")):
			r.errorf(r.at(fv), "path is %q; it has to be absolute, as /proc/4242/ns/net", s)
			ok = false
		case name == "netns":
			d.Path = "/run/netns/" + s
		default:
			d.Path = s
		}
	})
	if !ok {
		return
	}
	if d.Path == "" {
		r.errorf(d.Pos, "device namespace %s has neither netns nor path: say which network namespace it is", d.Name)
		return
	}
	r.policy.DeviceNamespaces = append(r.policy.DeviceNamespaces, d)
}

func (r *reader) group(k, v *yaml.Node) {
	ok := r.checkName(k, "group")
	g := Group{Name: k.Value, Pos: r.at(k)}
	for _, n := range r.items(v, "group "+k.Value, true) {
		if a, valid := r.address(n, "a group"); valid {
			g.Addresses = append(g.Addresses, a)
		}
	}
	if ok {
		r.names = append(r.names, declared{k.Value, g.Pos, true})
		r.policy.Groups = append(r.policy.Groups, g)
	}
}

func (r *reader) enforcement(v *yaml.Node) {
	r.fields(v, "enforcement", enforcementKeys, func(name string, _, v *yaml.Node) {
		if s, ok := r.word(v, name, string(SyscallsAuto), string(SyscallsRequired)); ok {
			r.policy.Syscalls = SyscallTier(s)
		}
	})
}
