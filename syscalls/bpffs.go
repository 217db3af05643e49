package syscalls

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bpffsPath is where systemd mounts bpffs (file-hierarchy(7)).
const bpffsPath = "/sys/fs/bpf"

// bpffsRemedy is for who lacks the mount.
const bpffsRemedy = "run as root: mount -t bpf bpf " + bpffsPath

// bpffs returns the place of a mounted bpffs, "" if there is none.
func bpffs() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	found := ""
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): 36 35 98:0 /root /mountpoint options... - type source options
		head, tail, ok := strings.Cut(line, " - ")
		fields := strings.Fields(head)
		if !ok || len(fields) < 5 || !strings.HasPrefix(tail, "bpf ") {
			continue
		}
		if fields[4] == bpffsPath {
			return bpffsPath, nil
		}
		if found == "" {
			found = fields[4]
		}
	}
	return found, nil
}

// MountBpffs returns the place of a mounted bpffs. If there is none it mounts
// one at its usual place (CAP_SYS_ADMIN), but not in a mount namespace that may
// be gone tomorrow, and the pins with it.
func MountBpffs() (string, error) {
	if dir, err := bpffs(); err != nil || dir != "" {
		return dir, err
	}
	own, err1 := firstMount("self")
	first, err2 := firstMount("1")
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	if own != first {
		return "", fmt.Errorf("no bpffs is mounted in this mount namespace: %s", bpffsRemedy)
	}
	// Of two processes one mounts: a second mount would hide the first one's pins.
	place, err := os.Open(bpffsPath)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bpffsRemedy)
	}
	defer place.Close()
	if err := unix.Flock(int(place.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", bpffsPath, err)
	}
	if dir, err := bpffs(); err != nil || dir != "" {
		return dir, err
	}
	if err := unix.Mount("bpf", bpffsPath, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700"); err != nil {
		return "", fmt.Errorf("no bpffs is mounted, and mounting it fails (%w): %s", err, bpffsRemedy)
	}
	return bpffsPath, nil
}

// firstMount returns the ID of the first mount that a process sees, which no
// other mount namespace has (proc_pid_mountinfo(5)). Unlike /proc/1/ns/mnt it
// can be read by a process that has fewer capabilities than init.
func firstMount(pid string) (string, error) {
	text, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return "", err
	}
	id, _, _ := strings.Cut(string(text), " ")
	return id, nil
}
