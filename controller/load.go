package controller

import (
	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/source"
)

// Loaded is a policy as it was read, with the files that it came from.
type Loaded struct {
	Files       []model.File
	Policy      *model.Policy     // nil if Diagnostics has errors
	Diagnostics model.Diagnostics // errors
	parsed      *model.Parsed
	findings    []lint.Finding // nil until they are asked for
}

// Load reads the policy that files and directories hold. The error is about
// reading; what is wrong with the policy itself is in Diagnostics.
func Load(paths []string) (*Loaded, error) { return (*Loaded)(nil).Again(paths) }

// Again loads once more, and parses the files that have changed alone. A nil
// Loaded has none.
func (l *Loaded) Again(paths []string) (*Loaded, error) {
	var former []model.File
	var parsed *model.Parsed
	if l != nil {
		former, parsed = l.Files, l.parsed
	}
	files, err := source.Reread(paths, former)
	if err != nil {
		return nil, err
	}
	return parseAfter(files, parsed), nil
}

func parse(files []model.File) *Loaded { return parseAfter(files, nil) }

func parseAfter(files []model.File, parsed *model.Parsed) *Loaded {
	p, diags, parsed := model.Reparse(files, parsed)
	l := &Loaded{Files: files, Diagnostics: diags, parsed: parsed}
	if !diags.HasErrors() {
		l.Policy = p
	}
	return l
}

// Lint returns what the policy says in vain, which is found when it is asked
// for first. It is not safe for concurrent use.
func (l *Loaded) Lint() []lint.Finding {
	if l.findings == nil && l.Policy != nil {
		l.findings = lint.Check(l.Policy, l.Files)
	}
	return l.findings
}

// Warnings returns the same as diagnostics.
func (l *Loaded) Warnings() model.Diagnostics {
	var list model.Diagnostics
	for _, f := range l.Lint() {
		list = append(list, f.Diagnostic())
	}
	return list
}
