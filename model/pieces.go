package model

import (
	"bytes"
	"runtime"
	"slices"

	"gopkg.in/yaml.v3"
)

// A large file is read in pieces: its socket namespaces are divided where one
// ends and the next begins, each piece is YAML on its own, and several are parsed
// while one is read. It takes half of the time, and a part of the memory: the YAML
// parser's tree is twelve times as large as the text. Whatever is unusual about a
// file, an error above all, makes it be read as a whole.

// pieceSize is how large a piece is at least, in bytes. Files that are not twice as
// large are read as a whole. Tests make it small.
var pieceSize = 16 << 10

// piece is a part of a file that begins behind some lines.
type piece struct {
	text  []byte
	lines int
}

// divided is a file: what stands before its socket namespaces, these, and what
// stands behind them.
type divided struct {
	head, tail piece
	line       int // of the key
	pieces     []piece
}

var namespacesKey = []byte("socketNamespaces:")

// divide divides the text of a file, if its form is the usual one.
func divide(data []byte) (d divided, ok bool) {
	if len(data) < 2*pieceSize || bytes.Contains(data, []byte("\n---")) || bytes.Contains(data, []byte("\n...")) || bytes.IndexByte(data, '\r') >= 0 {
		return d, false
	}
	indent, number, begin := 0, 0, -1 // of the names; lines seen; where the current piece begins
	cut := func(end int) {
		p := &d.pieces[len(d.pieces)-1]
		p.text = data[begin:end]
	}
	for at := 0; at < len(data); number++ {
		end := at + bytes.IndexByte(data[at:], '\n') + 1
		if end == at {
			end = len(data)
		}
		line := bytes.TrimRight(data[at:end], " \n")
		spaces := len(line) - len(bytes.TrimLeft(line, " "))
		switch {
		case len(line) == 0 || line[spaces] == '#':
		case begin < 0 && d.line == 0:
			if bytes.Equal(line, namespacesKey) {
				d.head.text, d.line = data[:at], number+1
			}
		case spaces == 0:
			if begin < 0 {
				return d, false // nothing below the key
			}
			cut(at)
			d.tail = piece{data[at:], number}
			return d, true
		case begin < 0:
			indent, begin = spaces, at
			d.pieces = append(d.pieces, piece{lines: number})
		case spaces == indent && at-begin >= pieceSize && line[spaces] != '-':
			cut(at)
			begin = at
			d.pieces = append(d.pieces, piece{lines: number})
		}
		at = end
	}
	if begin < 0 {
		return d, false
	}
	cut(len(data))
	return d, true
}

// parse returns the mapping that a piece is; nil if it is none.
func (p piece) parse() *yaml.Node {
	var doc yaml.Node
	if yaml.Unmarshal(p.text, &doc) != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	if p.lines > 0 {
		shift(doc.Content[0], p.lines)
	}
	return doc.Content[0]
}

func shift(n *yaml.Node, lines int) {
	n.Line += lines
	for _, c := range n.Content {
		shift(c, lines)
	}
}

// pieces reads a file in pieces and reports whether that succeeded. If not,
// nothing has changed.
func (r *reader) pieces(f File) bool {
	d, ok := divide(f.Data)
	if !ok {
		return false
	}
	// A document whose socket namespaces come from elsewhere.
	root := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	for _, part := range []piece{d.head, {namespacesKey, d.line - 1}, d.tail} {
		n := part.parse()
		switch {
		case n != nil:
			root.Content = append(root.Content, n.Content...)
		case len(part.text) > 0:
			return false
		}
	}
	attempt := newReader(nil)
	attempt.name, attempt.budget = r.name, r.budget
	next, stop := parseAll(d.pieces)
	at := 0 // piece
	defer stop()
	attempt.inPieces = func() *yaml.Node {
		if at++; at == 2 { // the first says how many there will be
			list := attempt.policy.SocketNamespaces
			attempt.policy.SocketNamespaces = slices.Grow(list, len(list)*len(d.pieces))
		}
		return next()
	}
	attempt.document(root)
	if attempt.inPieces = nil; attempt.anything() || attempt.repeats() {
		return false
	}
	attempt.reporter = r.reporter
	*r = *attempt
	return true
}

// repeats reports whether a name is given twice in the file: a key of one mapping
// perhaps, whose pieces know nothing of one another.
func (r *reader) repeats() bool {
	seen := make(map[string]bool, len(r.names))
	for i := range r.names {
		if seen[r.names[i].name] {
			return true
		}
		seen[r.names[i].name] = true
	}
	return false
}

// parseAll parses pieces, a few ahead of who asks for the next one. It is nil at the
// end, and without content if it is no mapping. stop lets go of the rest.
func parseAll(pieces []piece) (next func() *yaml.Node, stop func()) {
	parsed := make([]chan *yaml.Node, len(pieces))
	for i := range parsed {
		parsed[i] = make(chan *yaml.Node, 1)
	}
	// Begun in order: the next one to be asked for is never behind the others.
	ahead, stopped := make(chan struct{}, 1+runtime.GOMAXPROCS(0)), make(chan struct{})
	go func() {
		for i, p := range pieces {
			select {
			case ahead <- struct{}{}:
				go func() { parsed[i] <- p.parse() }()
			case <-stopped:
				return
			}
		}
	}()
	at := 0
	return func() *yaml.Node {
		if at == len(pieces) {
			return nil
		}
		n := <-parsed[at]
		<-ahead
		if at++; n == nil {
			n = &yaml.Node{}
		}
		return n
	}, func() { close(stopped) }
}
