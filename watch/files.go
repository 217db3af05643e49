package watch

import (
	"slices"
	"time"

	"github.com/sockns/sockns/source"
)

// Files watches policy files and directories, those that do not exist yet
// included. It follows symbolic links, so it notices how editors replace a file
// and how Kubernetes swaps the contents of a ConfigMap, and waits until a burst
// of changes is over. A write is noticed when the file is closed.
// Its methods are safe for concurrent use.
type Files struct{ *paths }

// How long a burst of changes may pause and last, and how soon another save would
// have to follow for one to be a part of the burst.
const (
	filesSaved = 2 * time.Millisecond
	filesQuiet = 50 * time.Millisecond
	filesMost  = time.Second
)

// OpenFiles watches the paths that [source.Files] takes. Standard input is
// passed over: it can't change.
func OpenFiles(paths ...string) (*Files, error) {
	paths = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == source.Stdin })
	p, err := open(settings{paths: paths, entry: source.IsPolicyFile, saved: filesSaved, quiet: filesQuiet, most: filesMost, table: -1})
	if err != nil {
		return nil, wrap("policy files", err)
	}
	return &Files{p}, nil
}
