package bench

import (
	"fmt"
	"strings"
)

// What people write by hand, for nft(8), with the same meaning as far as it goes.

const emptyRules = `table inet empty {
	chain input { type filter hook input priority filter; }
	chain output { type filter hook output priority filter; }
}
`

// conntrackRules let pass what belongs to a connection that exists.
const conntrackRules = `table inet tracked {
	chain input { type filter hook input priority filter; ct state established,related accept; }
	chain output { type filter hook output priority filter; ct state established,related accept; }
}
`

// handRules are the 8 rules of namespace i, without peers by name, which no
// hand can follow: prefixes stand for them.
func handRules(i int, connect, accept func(format string, args ...any)) {
	a, b := i/250%250, i%250
	connect("tcp dport %d ip daddr 10.%d.%d.1 accept", 10000+i, a, b)
	connect("udp dport 53 ip daddr 10.%d.%d.53 accept", a, b)
	connect("tcp dport 8000-8080 ip daddr 10.%d.%d.0/24 accept", a, b)
	connect("th dport %d accept", servicePort)
	accept("tcp dport %d ip saddr 10.%d.%d.1 accept", 10000+i, a, b)
	accept("tcp dport 22 ip saddr 10.%d.%d.0/24 reject", a, b)
	accept("udp dport 6000-6010 ip saddr 10.%d.0.0/16 accept", a)
	accept("th dport %d accept", servicePort)
}

// nftCgroup returns a member's cgroup as nft(8) looks for it, below /sys/fs/cgroup.
func nftCgroup(n, i int) string {
	mount := strings.TrimPrefix(cgroups.tree.Mount(), "/sys/fs/cgroup")
	return strings.TrimPrefix(mount+lastMembers(n, i), "/")
}

// linearRules are n namespaces one after another: `socket cgroupv2` in each rule.
func linearRules(n int) string {
	var output, input strings.Builder
	for i := range n {
		cgroup := fmt.Sprintf("socket cgroupv2 level 2 %q ", nftCgroup(n, i))
		handRules(i,
			func(format string, args ...any) { fmt.Fprintf(&output, cgroup+format+"\n", args...) },
			func(format string, args ...any) { fmt.Fprintf(&input, cgroup+format+"\n", args...) })
		output.WriteString(cgroup + "reject\n")
		input.WriteString(cgroup + "reject\n")
	}
	return handTable(output.String(), input.String(), "")
}

// mapRules are n namespaces as those who know nftables write them: a verdict map
// from the cgroup to a chain for each.
func mapRules(n int) string {
	var chains, connect, accept strings.Builder
	for i := range n {
		var c, a strings.Builder
		handRules(i,
			func(format string, args ...any) { fmt.Fprintf(&c, format+"\n", args...) },
			func(format string, args ...any) { fmt.Fprintf(&a, format+"\n", args...) })
		fmt.Fprintf(&chains, "chain c%d {\n%sreject\n}\nchain a%d {\n%sreject\n}\n", i, &c, i, &a)
		fmt.Fprintf(&connect, "%q : goto c%d, ", nftCgroup(n, i), i)
		fmt.Fprintf(&accept, "%q : goto a%d, ", nftCgroup(n, i), i)
	}
	const maps = "map %s { type cgroupsv2 : verdict; elements = { %s } }\n"
	return handTable("socket cgroupv2 level 2 vmap @connecting\n", "socket cgroupv2 level 2 vmap @accepting\n",
		chains.String()+fmt.Sprintf(maps, "connecting", &connect)+fmt.Sprintf(maps, "accepting", &accept))
}

func handTable(output, input, rest string) string {
	const first = "tcp flags & (fin|syn|rst|ack) != syn accept\nmeta l4proto != { tcp, udp } accept\n"
	return "table inet byhand {\n" + rest +
		"chain input { type filter hook input priority filter;\n" + first + input + "}\n" +
		"chain output { type filter hook output priority filter;\n" + first + output + "}\n}\n"
}
