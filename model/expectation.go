package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// Expectation is one entry of tests: a question and what the answer has to be.
type Expectation struct {
	Flow     string // the question in the words of the file
	Question Question
	Want     string // "allow", "deny" or the name of an errno
	Pos      Position
	words    Position // where Flow begins: behind a quotation mark
}

// Met reports whether a decision is the expected one.
func (e Expectation) Met(d Decision) bool {
	switch e.Want {
	case string(Allow):
		return d.Allowed()
	case string(Deny):
		return !d.Allowed()
	}
	return d.Error() == Errno(e.Want)
}

// ParseTests reads expectations from files of their own. Such a file is YAML: a
// mapping of flows to what is expected, or a list of such mappings as under
// the key tests of a policy.
func (p *Policy) ParseTests(files []File) ([]Expectation, Diagnostics) {
	r := newReader(files)
	r.policy = p
	var list []Expectation
	for _, f := range files {
		if !r.open(f) {
			continue
		}
		var doc yaml.Node
		d := yaml.NewDecoder(bytes.NewReader(f.Data))
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			r.errorf(Position{f.Name, 1, 1}, "the file is empty: write expectations, one a line, as web connect db tcp/5432: allow")
		case err != nil:
			r.syntax(f, d, err)
		case len(doc.Content) == 1 && doc.Content[0].Kind == yaml.MappingNode:
			list = append(list, r.expectations(doc.Content[0])...)
		case len(doc.Content) == 1:
			list = append(list, r.tests(doc.Content[0])...)
		}
	}
	return r.questions(list), r.sorted()
}

// tests reads a list of expectations.
func (r *reader) tests(v *yaml.Node) (list []Expectation) {
	for _, n := range r.items(v, "tests", false) {
		list = append(list, r.expectations(n)...)
	}
	return list
}

// expectations reads a mapping of flows to what is expected. What the flows
// say is read when all names are known; see questions.
func (r *reader) expectations(n *yaml.Node) (list []Expectation) {
	allowed := []string{string(Allow), string(Deny)}
	for _, e := range []Errno{EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EPERM, ETIMEDOUT} {
		allowed = append(allowed, string(e))
	}
	r.mapping(n, "a test", func(k, v *yaml.Node) {
		want, ok := r.word(v, fmt.Sprintf("what %q expects", k.Value), allowed...)
		if !ok {
			return
		}
		e := Expectation{Flow: k.Value, Want: want, Pos: r.at(k), words: r.at(k)}
		if k.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			e.words.Column++
		}
		list = append(list, e)
	})
	return list
}

// questions reads the words of expectations and returns those that say something.
func (r *reader) questions(list []Expectation) []Expectation {
	kept := list[:0]
	for _, e := range list {
		q, err := r.policy.ParseQuestion(e.Flow)
		var wrong *QuestionError
		if errors.As(err, &wrong) {
			pos := e.words
			pos.Column += wrong.Column - 1
			r.errorf(pos, "%s", wrong.Message)
			continue
		}
		e.Question = q
		kept = append(kept, e)
	}
	return kept
}
