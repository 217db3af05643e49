package syscalls

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Program reads back what is in force, so that it can be put in force again;
// nil before the first Swap.
func (t *Tier) Program() (*Program, error) {
	p := &Program{}
	members, err := readMap[uint64, member](t, "members")
	if err != nil || members == nil {
		return nil, err
	}
	for cgroup, m := range members {
		p.Members = append(p.Members, Member{
			Cgroup: cgroup, Netns: m.Netns, Policy: m.Policy, Identity: m.Identity, Source: m.Source,
			Audit: m.Flags&memberAudit != 0,
		})
	}
	locals, err := readMap[local, uint32](t, "locals")
	if err != nil {
		return nil, err
	}
	for cookie := range t.lookups {
		p.Netns = append(p.Netns, cookie)
	}
	for l, owner := range locals {
		p.Locals = append(p.Locals, Local{l.Netns, l.Address, owner})
	}
	policies, err := readList[policy](t, "policies")
	if err != nil {
		return nil, err
	}
	for _, q := range policies {
		p.Policies = append(p.Policies, Policy{q.Own, q.Bind, q.Connect, q.Accept, q.Taken, q.Source4, q.Source6, PolicyFlags(q.Flags)})
	}
	if p.Entries, err = readList[Entry](t, "entries"); err != nil {
		return nil, err
	}
	p.Ranges, err = readList[Range](t, "ranges")
	return p, err
}

func readMap[K comparable, V any](t *Tier, name string) (map[K]V, error) {
	m, err := t.inForce(name)
	if err != nil || m == nil {
		return nil, err
	}
	all := make(map[K]V)
	keys, values := make([]K, batchSize), make([]V, batchSize) // larger than any bucket
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			all[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", name, err)
		}
	}
}

// readList reads an array. What is behind the list is zero, and no element is.
func readList[V comparable](t *Tier, name string) ([]V, error) {
	m, err := t.inForce(name)
	if err != nil || m == nil {
		return nil, err
	}
	list := make([]V, m.MaxEntries())
	keys := make([]uint32, len(list))
	var cursor ebpf.MapBatchCursor
	for n := 0; n < len(list); {
		got, err := m.BatchLookup(&cursor, keys[n:], list[n:], nil)
		n += got
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", name, err)
		}
	}
	end := len(list)
	for end > 0 && list[end-1] == *new(V) {
		end--
	}
	if end == 0 {
		return nil, nil
	}
	return list[:end:end], nil
}
