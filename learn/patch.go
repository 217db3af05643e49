package learn

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/sockns/sockns/model"
)

// Patch returns the file of a policy that has the namespace, with the rules
// added behind those that are there; all else, comments too, stays as it is.
// With enforce, mode: audit becomes mode: enforce. The result was parsed, with
// the other files, and refuses nothing of what the rules were learned from.
func (l *Learned) Patch(files []model.File, enforce bool) (model.File, error) {
	p, _ := model.Parse(files)
	n := p.Namespace(l.Namespace)
	if n == nil {
		return model.File{}, fmt.Errorf("the policy has no socket namespace %s", l.Namespace)
	}
	i := slices.IndexFunc(files, func(f model.File) bool { return f.Name == n.Pos.File })
	e, err := newEditor(files[i], l.Namespace)
	if err != nil {
		return model.File{}, err
	}
	for _, h := range model.Hooks {
		var rules []Rule
		for _, r := range l.Rules {
			if r.Hook == h {
				rules = append(rules, r)
			}
		}
		if len(rules) > 0 {
			if err := e.add(h, rules); err != nil {
				return model.File{}, err
			}
		}
	}
	if enforce {
		e.enforce()
	}
	patched := model.File{Name: files[i].Name, Data: e.result()}
	all := slices.Clone(files)
	all[i] = patched
	after, diags := model.Parse(all)
	if diags.HasErrors() {
		return model.File{}, fmt.Errorf("the rules can't be added to %s in its form: %v; write the namespace as lines (key: value), one rule a line", n.Pos, diags[0])
	}
	if err := l.Verify(after); err != nil {
		return model.File{}, fmt.Errorf("%s: %w", n.Pos, err)
	}
	return patched, nil
}

// editor changes the text of one namespace by inserting and replacing.
type editor struct {
	file      model.File
	lines     []int      // offset of each line
	key       *yaml.Node // the namespace's name
	namespace *yaml.Node // its mapping
	edits     []edit
}

// edit replaces the bytes from first to last. Of two at one place, that of a
// list which is there comes before a new key.
type edit struct {
	first, last int
	text        string
	key         bool
}

func newEditor(f model.File, namespace string) (*editor, error) {
	e := &editor{file: f, lines: []int{0}}
	for i, c := range f.Data {
		if c == '\n' {
			e.lines = append(e.lines, i+1)
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(f.Data))
	for {
		var doc yaml.Node
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if len(doc.Content) == 0 {
			continue
		}
		if _, all := entry(doc.Content[0], "socketNamespaces"); all != nil {
			if k, v := entry(all, namespace); v != nil {
				e.key, e.namespace = k, v
			}
		}
	}
	switch {
	case e.namespace == nil:
		return nil, fmt.Errorf("%s: socket namespace %s is not written out", f.Name, namespace)
	case e.namespace.Kind != yaml.MappingNode || e.namespace.Style&yaml.FlowStyle != 0:
		return nil, fmt.Errorf("%s:%d: socket namespace %s is written in braces or as an alias: write it as lines (key: value), so that rules can be added", f.Name, e.key.Line, namespace)
	}
	return e, nil
}

// entry finds a key of a mapping.
func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

func (e *editor) offset(n *yaml.Node) int { return e.lines[n.Line-1] + n.Column - 1 }

// add puts rules behind those of a hook.
func (e *editor) add(h model.Hook, rules []Rule) error {
	key, list := entry(e.namespace, h.String())
	switch {
	case key == nil:
		indent := strings.Repeat(" ", e.namespace.Column-1)
		text := indent + h.String() + ":\n" + items(indent+"  ", rules)
		at := e.behind(e.namespace)
		e.edits = append(e.edits, edit{first: at, last: at, text: text, key: true})
	case list.Kind != yaml.SequenceNode:
		return fmt.Errorf("%s:%d: %s is an alias: write the list out, so that rules can be added", e.file.Name, key.Line, h)
	case list.Style&yaml.FlowStyle != 0:
		indent := strings.Repeat(" ", key.Column+1)
		var old strings.Builder
		for _, item := range list.Content {
			text, err := yaml.Marshal(item)
			if err != nil {
				return err
			}
			old.WriteString("\n" + indent + "- " + strings.TrimSpace(string(text)))
		}
		first := e.offset(list)
		for first > 0 && e.file.Data[first-1] == ' ' {
			first--
		}
		text := old.String() + "\n" + strings.TrimSuffix(items(indent, rules), "\n")
		e.edits = append(e.edits, edit{first: first, last: e.end(list), text: text})
	default:
		at := e.behind(list)
		e.edits = append(e.edits, edit{first: at, last: at, text: items(strings.Repeat(" ", list.Column-1), rules)})
	}
	return nil
}

func items(indent string, rules []Rule) string {
	var b strings.Builder
	for _, r := range rules {
		if c := r.Comment(); c != "" {
			fmt.Fprintf(&b, "%s# %s\n", indent, c)
		}
		fmt.Fprintf(&b, "%s- %s\n", indent, r)
	}
	return b.String()
}

// behind returns the offset of the line after a node.
func (e *editor) behind(n *yaml.Node) int {
	at := e.end(n)
	if i := bytes.IndexByte(e.file.Data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(e.file.Data)
}

// end returns an offset behind a node, in its last line.
func (e *editor) end(n *yaml.Node) int {
	switch {
	case n.Kind == yaml.AliasNode || n.Kind == yaml.ScalarNode:
		return e.scalarEnd(e.offset(n))
	case n.Style&yaml.FlowStyle != 0:
		return e.flowEnd(e.offset(n))
	case len(n.Content) == 0:
		return e.offset(n)
	}
	return e.end(n.Content[len(n.Content)-1])
}

// scalarEnd finds the end of a plain or quoted scalar. Those of the language
// are words; one over several lines ends where its quotes do.
func (e *editor) scalarEnd(at int) int {
	data := e.file.Data
	if at < len(data) && (data[at] == '"' || data[at] == '\'') {
		return quoteEnd(data, at)
	}
	for at < len(data) && !strings.ContainsRune(" \n,]}#", rune(data[at])) {
		at++
	}
	return at
}

// flowEnd finds what closes the bracket at an offset.
func (e *editor) flowEnd(at int) int {
	data := e.file.Data
	depth := 0
	for ; at < len(data); at++ {
		switch c := data[at]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return at + 1
			}
		case (c == '"' || c == '\'') && strings.IndexByte(" [{,:\n", data[at-1]) >= 0:
			at = quoteEnd(data, at) - 1
		case c == '#' && strings.IndexByte(" \n\t", data[at-1]) >= 0:
			for at < len(data) && data[at] != '\n' {
				at++
			}
		}
	}
	return at
}

func quoteEnd(data []byte, at int) int {
	quote := data[at]
	for at++; at < len(data); at++ {
		switch {
		case data[at] == '\\' && quote == '"':
			at++
		case data[at] == quote && quote == '\'' && at+1 < len(data) && data[at+1] == quote:
			at++
		case data[at] == quote:
			return at + 1
		}
	}
	return at
}

// enforce ends an audit.
func (e *editor) enforce() {
	if _, mode := entry(e.namespace, "mode"); mode != nil && mode.Value == string(model.Audit) {
		at := e.offset(mode)
		e.edits = append(e.edits, edit{first: at, last: e.scalarEnd(at), text: string(model.Enforce)})
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (e *editor) result() []byte {
	slices.SortStableFunc(e.edits, func(a, b edit) int {
		return cmp.Or(cmp.Compare(a.first, b.first), compareBool(a.key, b.key))
	})
	var out bytes.Buffer
	at := 0
	for _, d := range e.edits {
		out.Write(e.file.Data[at:d.first])
		if d.first == d.last && d.first == len(e.file.Data) && out.Len() > 0 && out.Bytes()[out.Len()-1] != '\n' {
			out.WriteByte('\n')
		}
		out.WriteString(d.text)
		at = d.last
	}
	out.Write(e.file.Data[at:])
	return out.Bytes()
}
