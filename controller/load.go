package controller

import (
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/source"
)

// Loaded is a policy as it was read, with the files that it came from.
type Loaded struct {
	Files       []model.File
	Policy      *model.Policy // nil if Diagnostics has errors
	Diagnostics model.Diagnostics
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
