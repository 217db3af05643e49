package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// entry is a subdirectory as its parent lists it.
type entry struct {
	name  string
	inode uint64 // 0: not known
}

// readDir lists the subdirectories of an open directory. It exists beside
// os.ReadDir because a cgroup directory holds some fifty files, whose names
// need not become strings, and because the listing has the inode numbers that
// are the ids. A directory that has been removed lists nothing. buf is
// scratch memory for one call.
func readDir(fd int, buf []byte) ([]entry, error) {
	var entries []entry
	for {
		var n int
		err := ignoringEINTR(func() (err error) {
			n, err = unix.Getdents(fd, buf)
			return err
		})
		if gone(err) || err == nil && n == 0 {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = appendDirs(entries, buf[:n])
	}
}

// appendDirs decodes the records of getdents64(2) and appends those of
// directories, without "." and "..". Records whose kind the file system does
// not tell are taken for directories.
func appendDirs(entries []entry, records []byte) []entry {
	const inode, length, kind, name = 0, 16, 18, 19 // offsets in struct linux_dirent64
	for len(records) > name {
		size := int(binary.NativeEndian.Uint16(records[length:]))
		if size <= name || size > len(records) {
			break
		}
		record := records[:size]
		records = records[size:]
		if record[kind] != unix.DT_DIR && record[kind] != unix.DT_UNKNOWN {
			continue
		}
		n, _, _ := bytes.Cut(record[name:], []byte{0})
		if string(n) == "." || string(n) == ".." {
			continue
		}
		entries = append(entries, entry{string(n), binary.NativeEndian.Uint64(record[inode:])})
	}
	return entries
}

// openDir opens a directory below another and returns what it is.
func openDir(at int, name string) (fd int, st unix.Stat_t, err error) {
	err = ignoringEINTR(func() error {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// gone reports whether an error says that a directory was removed: before it
// was opened (ENOENT), after (ENODEV), or that another kind of file has its
// name now (ENOTDIR).
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOTDIR)
}
