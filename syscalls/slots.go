package syscalls

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"

	"github.com/cilium/ebpf"
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

// membersOf returns the members by the ids of their cgroups.
func membersOf(p *Program) map[uint64]member {
	members := make(map[uint64]member, len(p.Members))
	for _, m := range p.Members {
		members[m.Cgroup] = m.wire()
	}
	return members
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
// rules are those in force already, there is nothing to do. Otherwise the slot
// that is not in force gets what it lacks, all of it if what it holds is not
// known, which takes some RCU grace periods.
func (t *Tier) Prepare(p *Program) error {
	t.next = nil
	want := t.contentOf(p)
	if same, err := t.current(want.digest); err != nil || same {
		return err
	}
	t.settling.Wait()
	now, err := t.state()
	if err != nil {
		return fmt.Errorf("read the slot in force: %w", err)
	}
	next := state{Slot: 1 - now.Slot&1, Digest: want.digest}
	if err := t.fill(next.Slot, p, want); err != nil {
		return err
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
	t.left = true
	return nil
}

// Holds reports whether a program is what is in force, as far as this process
// knows: false if it does not.
func (t *Tier) Holds(p *Program) bool {
	now, err := t.state()
	if err != nil {
		return false
	}
	in, want := t.holds[now.Slot&1], t.contentOf(p)
	return in != nil && now.Digest == want.digest && maps.Equal(in.members, want.members) && maps.Equal(in.locals, want.locals)
}

// Current reports whether what is open here is what the pins lead to: it is not
// once they were removed and the programs installed anew.
func (t *Tier) Current() bool {
	m, err := ebpf.LoadPinnedMap(filepath.Join(t.dir, "map_active"), nil)
	if err != nil {
		return false
	}
	defer m.Close()
	pinned, err1 := mapID(m)
	open, err2 := mapID(t.maps["active"])
	return err1 == nil && err2 == nil && pinned == open
}

// contentOf is the content of a program for these programs, made once.
func (t *Tier) contentOf(p *Program) *content {
	if t.of != p {
		t.of, t.content = p, p.content(identity(t.variant))
	}
	return t.content
}

// Settle has the slot that is not in force hold what is: p, as whoever calls says.
// The next [Tier.Prepare] finds the slot ready then, and writes what differs. It
// returns at once. What it could not do, Prepare does.
func (t *Tier) Settle(p *Program) {
	t.settling.Wait()
	now, err := t.state()
	want := t.contentOf(p)
	if err != nil || now.Digest != want.digest {
		return
	}
	in := now.Slot & 1
	if t.holds[in] == nil {
		t.holds[in] = want.clone()
	}
	t.of, t.content = nil, nil // large
	t.settling.Go(func() { _ = t.fill(1-in, p, want) })
}

func (t *Tier) follow(p *Program) error {
	members := membersOf(p)
	if err := followMap(t, "members", members); err != nil {
		return err
	}
	locals := localsOf(p)
	if err := followMap(t, "locals", locals); err != nil {
		return err
	}
	if now, err := t.state(); err != nil {
		return err
	} else if in := t.holds[now.Slot&1]; in != nil {
		in.members, in.locals = members, locals
	}
	return nil
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

// slotMaps are the maps of a slot, each inside the map of its name. They have
// pins: to open a map by its id, which is what a lookup in the map around it
// gives, takes CAP_SYS_ADMIN (bpf(2), BPF_MAP_GET_FD_BY_ID).
var slotMaps = []string{"members", "locals", "policies", "entries", "ranges"}

func (t *Tier) slotPin(slot uint32, name string) string {
	return filepath.Join(t.dir, fmt.Sprintf("slot%d_%s", slot&1, name))
}

// inForce opens a map of the slot in force, or has it open; nil before the
// first Swap. It is the tier's to close.
func (t *Tier) inForce(name string) (*ebpf.Map, error) {
	s, err := t.state()
	if err != nil {
		return nil, err
	}
	open := t.slots[s.Slot&1]
	if m := open[name]; m != nil {
		return m, nil
	}
	m, err := ebpf.LoadPinnedMap(t.slotPin(s.Slot, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		open[name] = m
	}
	return m, err
}

// Same reports whether a program is what is in force, reading the kernel.
func (t *Tier) Same(p *Program) (bool, error) {
	if ok, err := t.current(t.contentOf(p).digest); err != nil || !ok {
		return false, err
	}
	members := membersOf(p)
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
	if err := inner.Put(m.Cgroup, m.wire()); err != nil {
		return err
	}
	return t.note(func(c *content) { c.members[m.Cgroup] = m.wire() })
}

// Leave removes a member from the program in force, if it is there.
func (t *Tier) Leave(cgroup uint64) error {
	inner, err := t.inForce("members")
	if err != nil || inner == nil {
		return err
	}
	if err := inner.Delete(cgroup); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return t.note(func(c *content) { delete(c.members, cgroup) })
}

// note changes what the slot in force is known to hold, if it is known.
func (t *Tier) note(change func(*content)) error {
	now, err := t.state()
	if err == nil && t.holds[now.Slot&1] != nil {
		change(t.holds[now.Slot&1])
	}
	return err
}
