package syscalls

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// state is struct state of the programs: which slot is in force, and of what.
type state struct {
	Slot   uint32
	Digest [digestSize]byte
}

// member is struct member.
type member struct {
	Netns            uint64
	Policy, Identity uint32
	Source, Flags    uint32
}

const memberAudit = 1

// policy is struct policy.
type policy struct {
	Own, Bind, Connect, Accept Span
	Taken                      [4]Span
	Source4, Source6           Address
	Flags                      uint32
}

// local is struct local.
type local struct {
	Netns   uint64
	Address Address
}

// localsOf returns the local addresses with their owners.
func localsOf(p *Program) map[local]uint32 {
	locals := make(map[local]uint32, len(p.Locals))
	for _, l := range p.Locals {
		locals[local{l.Netns, l.Address}] = l.Owner
	}
	return locals
}

func (m Member) wire() member {
	w := member{Netns: m.Netns, Policy: m.Policy, Identity: m.Identity, Source: m.Source}
	if m.Audit {
		w.Flags = memberAudit
	}
	return w
}

func (t *Tier) state() (state, error) {
	var s state
	err := t.maps["active"].Lookup(uint32(0), &s)
	return s, err
}

// Swap puts a program in force.
func (t *Tier) Swap(p *Program) error {
	if err := t.Prepare(p); err != nil {
		return err
	}
	return t.Flip(p)
}

// Prepare makes a program ready to be put in force by [Tier.Flip]. If the
// rules are those in force already, there is nothing to do. Otherwise all of
// it goes to the slot that is not in force; it takes some RCU grace periods.
func (t *Tier) Prepare(p *Program) error {
	t.next = nil
	if same, err := t.current(p); err != nil || same {
		return err
	}
	now, err := t.state()
	if err != nil {
		return fmt.Errorf("read the slot in force: %w", err)
	}
	// A call that read the word before the last flip may still be in the slot
	// that is overwritten now: membarrier(2) waits for an RCU grace period.
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0); errno != 0 { // MEMBARRIER_CMD_GLOBAL
		return fmt.Errorf("membarrier: %w", errno)
	}
	next := state{Slot: 1 - now.Slot&1, Digest: p.digest(identity(t.variant))}
	members := make(map[uint64]member, len(p.Members))
	for _, m := range p.Members {
		members[m.Cgroup] = m.wire()
	}
	locals := localsOf(p)
	policies := make([]policy, len(p.Policies))
	for i, q := range p.Policies {
		policies[i] = policy{q.Own, q.Bind, q.Connect, q.Accept, q.Taken, q.Source4, q.Source6, uint32(q.Flags)}
	}
	fill := []struct {
		name string
		fill func(*ebpf.Map) error
		size int
	}{
		{"members", func(m *ebpf.Map) error { return putAll(m, members) }, max(65536, 2*len(members))},
		{"locals", func(m *ebpf.Map) error { return putAll(m, locals) }, max(1024, 2*len(locals))},
		{"policies", func(m *ebpf.Map) error { return putList(m, policies) }, max(1, len(policies))},
		{"entries", func(m *ebpf.Map) error { return putList(m, p.Entries) }, max(1, len(p.Entries))},
	}
	for _, f := range fill {
		spec := t.inner[f.name].Copy()
		spec.MaxEntries = uint32(f.size)
		m, err := ebpf.NewMap(spec)
		if err != nil {
			return fmt.Errorf("make map %s: %w", f.name, err)
		}
		err = f.fill(m)
		if err == nil {
			err = t.maps[f.name].Put(next.Slot, m)
		}
		if err == nil {
			t.forget(next.Slot, f.name)
			path := t.slotPin(next.Slot, f.name)
			os.Remove(path)
			err = m.Pin(path)
		}
		m.Close()
		if err != nil {
			return fmt.Errorf("fill map %s: %w", f.name, err)
		}
	}
	t.next = &next
	return nil
}

// Flip puts the program that was prepared in force: one store, so that no
// decision mixes two policies. Where only members and addresses differ, their
// elements change one by one.
func (t *Tier) Flip(p *Program) error {
	if t.next == nil {
		return t.follow(p)
	}
	if err := t.maps["active"].Put(uint32(0), *t.next); err != nil {
		return fmt.Errorf("put the slot in force: %w", err)
	}
	t.next = nil
	return nil
}

func (t *Tier) follow(p *Program) error {
	members := make(map[uint64]member, len(p.Members))
	for _, m := range p.Members {
		members[m.Cgroup] = m.wire()
	}
	if err := followMap(t, "members", members); err != nil {
		return err
	}
	locals := localsOf(p)
	return followMap(t, "locals", locals)
}

// followMap brings a map of the slot in force to what is wanted: first what is
// new, then what is no more.
func followMap[K, V comparable](t *Tier, name string, want map[K]V) error {
	m, err := t.inForce(name)
	if err != nil || m == nil {
		return err
	}
	have, err := readMap[K, V](t, name)
	if err != nil {
		return err
	}
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			if err := m.Put(k, v); err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
		}
	}
	for k := range have {
		if _, ok := want[k]; ok {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	return nil
}

const batchSize = 4096

func putAll[K comparable, V any](m *ebpf.Map, all map[K]V) error {
	keys, values := make([]K, 0, len(all)), make([]V, 0, len(all))
	for k, v := range all {
		keys, values = append(keys, k), append(values, v)
	}
	for at := 0; at < len(keys); at += batchSize {
		end := min(at+batchSize, len(keys))
		if _, err := m.BatchUpdate(keys[at:end], values[at:end], nil); err != nil {
			return err
		}
	}
	return nil
}

func putList[V any](m *ebpf.Map, list []V) error {
	for at := 0; at < len(list); at += batchSize {
		end := min(at+batchSize, len(list))
		keys := make([]uint32, end-at)
		for i := range keys {
			keys[i] = uint32(at + i)
		}
		if _, err := m.BatchUpdate(keys, list[at:end], nil); err != nil {
			return err
		}
	}
	return nil
}

// slotMaps are the maps of a slot, each inside the map of its name. They have
// pins: to open a map by its id, which is what a lookup in the map around it
// gives, takes CAP_SYS_ADMIN (bpf(2), BPF_MAP_GET_FD_BY_ID).
var slotMaps = []string{"members", "locals", "policies", "entries"}

func (t *Tier) slotPin(slot uint32, name string) string {
	return filepath.Join(t.dir, fmt.Sprintf("slot%d_%s", slot&1, name))
}

// slotMap is a map of a slot.
type slotMap struct {
	slot uint32
	name string
}

// inForce opens a map of the slot in force, or has it open; nil before the
// first Swap. It is the tier's to close.
func (t *Tier) inForce(name string) (*ebpf.Map, error) {
	s, err := t.state()
	if err != nil {
		return nil, err
	}
	at := slotMap{s.Slot & 1, name}
	if m := t.slots[at]; m != nil {
		return m, nil
	}
	m, err := ebpf.LoadPinnedMap(t.slotPin(s.Slot, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		t.slots[at] = m
	}
	return m, err
}

// forget closes a map that is replaced by another.
func (t *Tier) forget(slot uint32, name string) {
	at := slotMap{slot & 1, name}
	if m := t.slots[at]; m != nil {
		m.Close()
		delete(t.slots, at)
	}
}

// Same reports whether a program is what is in force, reading the kernel.
func (t *Tier) Same(p *Program) (bool, error) {
	if ok, err := t.current(p); err != nil || !ok {
		return false, err
	}
	members := make(map[uint64]member, len(p.Members))
	for _, m := range p.Members {
		members[m.Cgroup] = m.wire()
	}
	if ok, err := sameMap(t, "members", members); err != nil || !ok {
		return false, err
	}
	locals := localsOf(p)
	return sameMap(t, "locals", locals)
}

func sameMap[K, V comparable](t *Tier, name string, want map[K]V) (bool, error) {
	have, err := readMap[K, V](t, name)
	return maps.Equal(have, want), err
}

// Join adds a member to the program in force.
func (t *Tier) Join(m Member) error {
	inner, err := t.inForce("members")
	if err != nil || inner == nil {
		return err
	}
	return inner.Put(m.Cgroup, m.wire())
}

// Leave removes a member from the program in force, if it is there.
func (t *Tier) Leave(cgroup uint64) error {
	inner, err := t.inForce("members")
	if err != nil || inner == nil {
		return err
	}
	if err := inner.Delete(cgroup); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}
