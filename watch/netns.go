package watch

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// NamedNetns is where ip-netns(8) keeps the names of network namespaces.
const NamedNetns = "/run/netns"

const mountTable = "/proc/self/mountinfo"

// How long a burst of changes may pause and last. `ip netns add` makes a file
// and then mounts the namespace on it.
const (
	netnsQuiet = 5 * time.Millisecond
	netnsMost  = 100 * time.Millisecond
)

// Netns watches the names of network namespaces: they appear, go, and are
// given to others. A name is a file that the namespace is mounted on, and a
// mount makes no inotify event: so the mount table is watched, for names
// anywhere, and the directory besides. A namespace that is named by a process
// (/proc/PID/ns/net) is not noticed to go.
// Its methods are safe for concurrent use.
type Netns struct{ *paths }

// OpenNetns watches [NamedNetns], whether it exists or not, and other paths
// that lead to names.
func OpenNetns(others ...string) (*Netns, error) {
	table, err := unix.Open(mountTable, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("network namespaces", fmt.Errorf("%s: %w", mountTable, err))
	}
	p, err := open(settings{
		paths: append([]string{NamedNetns}, others...),
		entry: func(string) bool { return true },
		quiet: netnsQuiet, most: netnsMost,
		table: table,
		summary: func() (string, error) {
			text, err := os.ReadFile(mountTable)
			return namespaceMounts(string(text)), err
		},
	})
	if err != nil {
		return nil, wrap("network namespaces", err)
	}
	return &Netns{p}, nil
}

// namespaceMounts returns which network namespaces are mounted where,
// according to the lines of a mountinfo file.
func namespaceMounts(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		// 50 24 0:4 net:[4026532290] /run/netns/blue rw shared:20 - nsfs nsfs rw
		fields := strings.Fields(line)
		if len(fields) > 5 && strings.HasPrefix(fields[3], "net:[") {
			fmt.Fprintln(&b, fields[3], fields[4])
		}
	}
	return b.String()
}
