package controller

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/sockns/sockns/sockdiag"
)

// operatorSockets tells the connections through which the operator has come who
// runs this program.
type operatorSockets struct {
	inodes map[uint32]bool // of sockets that ancestors of the process have open: sshd is one
	// What sshd says in SSH_CONNECTION (ssh(1)), which sudo drops.
	server, client netip.AddrPort
}

func operator() operatorSockets {
	o := operatorSockets{inodes: make(map[uint32]bool)}
	if f := strings.Fields(os.Getenv("SSH_CONNECTION")); len(f) == 4 {
		o.client, o.server = addrPort(f[0], f[1]), addrPort(f[2], f[3])
	}
	for pid := os.Getppid(); pid > 1; pid = parentOf(pid) {
		dir := fmt.Sprintf("/proc/%d/fd/", pid)
		fds, _ := os.ReadDir(dir) // what may not be read is not known
		for _, fd := range fds {
			link, _ := os.Readlink(dir + fd.Name())
			var inode uint32
			if _, err := fmt.Sscanf(link, "socket:[%d]", &inode); err == nil {
				o.inodes[inode] = true
			}
		}
	}
	return o
}

func addrPort(addr, port string) netip.AddrPort {
	a, err1 := netip.ParseAddr(addr)
	p, err2 := strconv.ParseUint(port, 10, 16)
	if err1 != nil || err2 != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(p))
}

// parentOf returns the parent of a process; 0 if there is none, or no such process.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// pid (name) state ppid: a name may hold anything (proc_pid_stat(5)).
	end := bytes.LastIndexByte(stat, ')')
	if err != nil || end < 0 {
		return 0
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	return parent
}

func (o operatorSockets) has(s sockdiag.Socket) bool {
	return s.Inode != 0 && o.inodes[s.Inode] || o.client.IsValid() && s.Local == o.server && s.Remote == o.client
}
