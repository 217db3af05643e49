package cgroup

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fileIDKernfs is the type of a file handle that is an id of kernfs: FILEID_KERNFS,
// see open_by_handle_at(2).
const fileIDKernfs = 0xfe

// Path returns the path of the cgroup with an id; see [Tree.ID]. It asks the
// kernel, by open_by_handle_at(2), and needs CAP_DAC_READ_SEARCH. The error
// wraps [fs.ErrNotExist] if the cgroup is gone or lies outside of the mount.
func (t *Tree) Path(id uint64) (string, error) {
	wrap := func(err error) error {
		return &fs.PathError{Op: "path of cgroup", Path: fmt.Sprint(id), Err: err}
	}
	mount, err := os.Open(t.mount)
	if err != nil {
		return "", wrap(err)
	}
	defer mount.Close()
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err == unix.ESTALE {
		err = unix.ENOENT
	}
	if err != nil {
		return "", wrap(err)
	}
	defer unix.Close(fd)
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", wrap(err)
	}
	if dir == t.mount {
		return "/", nil
	}
	below, ok := strings.CutPrefix(dir, t.mount+"/")
	if !ok || strings.HasSuffix(dir, " (deleted)") {
		return "", wrap(unix.ENOENT)
	}
	return "/" + below, nil
}
