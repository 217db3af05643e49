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
	findings    []lint.Finding    // nil until they are asked for
}

// Load reads the policy that files and directories hold. The error is about
// reading; what is wrong with the policy itself is in Diagnostics.
func Load(paths []string) (*Loaded, error) {
	files, err := source.Files(paths)
	if err != nil {
		return nil, err
	}
	return parse(files), nil
}

func parse(files []model.File) *Loaded {
	p, diags := model.Parse(files)
	l := &Loaded{Files: files, Diagnostics: diags}
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
