package device

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

const portRange = "/proc/sys/net/ipv4/ip_local_port_range"

// EphemeralPorts returns the first and the last of the ports that the kernel
// picks from for sockets that don't ask for one, of both families:
// net.ipv4.ip_local_port_range of the namespace. IP_LOCAL_PORT_RANGE narrows
// it for a single socket.
func (n *Namespace) EphemeralPorts() (first, last uint16, err error) {
	var text []byte
	err = n.Do(func() (err error) {
		text, err = os.ReadFile(portRange)
		return err
	})
	if err == nil {
		first, last, err = parsePortRange(string(text))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("device namespace %s: ephemeral ports: %w", n.name, err)
	}
	return first, last, nil
}

// parsePortRange reads "32768	60999".
func parsePortRange(text string) (first, last uint16, err error) {
	fields := strings.Fields(text)
	var ports [2]uint64
	ok := len(fields) == len(ports)
	for i := range ports {
		if ok {
			ports[i], err = strconv.ParseUint(fields[i], 10, 16)
			ok = err == nil
		}
	}
	if !ok || ports[0] > ports[1] {
		return 0, 0, fmt.Errorf("%s holds %q, want two ports", portRange, text)
	}
	return uint16(ports[0]), uint16(ports[1]), nil
}
