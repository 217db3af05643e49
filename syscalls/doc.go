// Package syscalls is the second tier of enforcement: cgroup-BPF programs that
// answer bind(2), connect(2) and sendto(2) with the errno of a rule, give a
// wildcard bind the socket namespace's own addresses, and steer connections to
// the listener of the namespace that accepts them.
//
// The programs (program/sockns.bpf.c) know no policy. They are attached once,
// at the root of the cgroup tree, by links that are pinned in bpffs, and walk
// a [Program] that [Tier.Swap] puts into one of two slots of maps. Which slot
// is in force is one word, so that a whole policy flips with one store and no
// decision mixes two.
//
// Packets stay the wall: without the programs nothing opens.
package syscalls

// The object is compiled by Debian bookworm's clang 14.0.6; TestObject holds it
// against the source.
//
//go:generate go tool bpf2go -go-package syscalls -target bpfel -cc clang-14 program program/sockns.bpf.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
