package flowset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sockns/sockns/flowset"
	"github.com/sockns/sockns/model/modeltest"
	"github.com/sockns/sockns/model/modeltest/golden"
)

// TestChanges compares the first two files of each archive and holds the
// changes against the third.
func TestChanges(t *testing.T) {
	golden.Each(t, "testdata/*.txtar", func(t *testing.T, archive *txtar.Archive) []txtar.File {
		var got strings.Builder
		a, b := modeltest.Parse(t, string(archive.Files[0].Data)), modeltest.Parse(t, string(archive.Files[1].Data))
		for _, c := range flowset.Compare(a, b) {
			fmt.Fprintln(&got, c.Sign(), c)
		}
		return golden.Last(archive, got.String())
	})
}
