package syscalls

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// content is what a slot holds: members and addresses in full, and of the lists
// the digests of their blocks. Lists are large, and to know where two differ is
// enough to write the difference.
type content struct {
	members  map[uint64]member
	locals   map[local]uint32
	policies blocks
	entries  blocks
	ranges   blocks
	digest   [digestSize]byte // of the lists, and the programs that read them
}

// blocks are the digests of a list's blocks.
type blocks struct {
	length int
	sums   [][sha256.Size]byte
}

// blockSize is how many elements of a list are written together.
const blockSize = 256

// content returns what a slot holds that the program is in, for some programs.
// The digest leaves out members and addresses, which come and go.
func (p *Program) content(programs []byte) *content {
	c := &content{members: membersOf(p), locals: localsOf(p)}
	c.policies = sumBlocks(p.Policies, func(b []byte, q *Policy) []byte {
		b, _ = binary.Append(b, binary.NativeEndian, q)
		return b
	})
	c.entries = sumBlocks(p.Entries, func(b []byte, e *Entry) []byte { return e.Append(b) })
	c.ranges = sumBlocks(p.Ranges, func(b []byte, r *Range) []byte { return r.Append(b) })
	h := sha256.New()
	h.Write(programs)
	for _, list := range []blocks{c.policies, c.entries, c.ranges} {
		h.Write(binary.NativeEndian.AppendUint64(nil, uint64(list.length)))
		for i := range list.sums {
			h.Write(list.sums[i][:])
		}
	}
	copy(c.digest[:], h.Sum(nil))
	return c
}

func sumBlocks[V any](list []V, appendTo func([]byte, *V) []byte) blocks {
	s := blocks{length: len(list), sums: make([][sha256.Size]byte, 0, len(list)/blockSize+1)}
	var b []byte
	for at := 0; at < len(list); at += blockSize {
		b = b[:0]
		for i := at; i < min(at+blockSize, len(list)); i++ {
			b = appendTo(b, &list[i])
		}
		s.sums = append(s.sums, sha256.Sum256(b))
	}
	return s
}

func (c *content) clone() *content {
	other := *c
	other.members, other.locals = maps.Clone(c.members), maps.Clone(c.locals)
	return &other
}

// fill brings the slot that is not in force to a program, whose content is want.
func (t *Tier) fill(slot uint32, p *Program, want *content) error {
	if t.left {
		// A call that read the word before the last flip may still be in the slot
		// that is overwritten now: membarrier(2) waits for an RCU grace period.
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0); errno != 0 { // MEMBARRIER_CMD_GLOBAL
			return fmt.Errorf("membarrier: %w", errno)
		}
		t.left = false
	}
	have := t.holds[slot]
	if have == nil {
		have = &content{}
	}
	t.holds[slot] = nil // is not known while it is written
	policies := make([]policy, len(p.Policies))
	for i, q := range p.Policies {
		policies[i] = policy{q.Own, q.Bind, q.Connect, q.Accept, q.Taken, q.Source4, q.Source6, uint32(q.Flags)}
	}
	for _, f := range []struct {
		name string
		size int                                    // that is needed
		room int                                    // for what comes
		put  func(m *ebpf.Map, have *content) error // from what the map has
	}{
		{"members", len(want.members), max(65536, 2*len(want.members)),
			func(m *ebpf.Map, have *content) error { return putChanged(m, have.members, want.members) }},
		{"locals", len(want.locals), max(1024, 2*len(want.locals)),
			func(m *ebpf.Map, have *content) error { return putChanged(m, have.locals, want.locals) }},
		{"policies", len(policies), roomy(len(policies)),
			func(m *ebpf.Map, have *content) error { return putBlocks(m, policies, have.policies, want.policies) }},
		{"entries", len(p.Entries), roomy(len(p.Entries)),
			func(m *ebpf.Map, have *content) error { return putBlocks(m, p.Entries, have.entries, want.entries) }},
		{"ranges", len(p.Ranges), roomy(len(p.Ranges)),
			func(m *ebpf.Map, have *content) error { return putBlocks(m, p.Ranges, have.ranges, want.ranges) }},
	} {
		var err error
		if m := t.slots[slot][f.name]; m != nil && have.members != nil && f.size <= int(m.MaxEntries()) {
			err = f.put(m, have)
		} else {
			err = t.replace(slot, f.name, f.room, func(m *ebpf.Map) error { return f.put(m, &content{}) })
		}
		if err != nil {
			return fmt.Errorf("fill map %s: %w", f.name, err)
		}
	}
	t.holds[slot] = want.clone()
	return nil
}

// roomy is how large the array of a list is: to replace it takes a grace period,
// to write what is new into it does not.
func roomy(n int) int { return max(1, n+n/4) }

// replace puts another map into a slot, which waits for an RCU grace period.
func (t *Tier) replace(slot uint32, name string, size int, fill func(*ebpf.Map) error) error {
	spec := t.inner[name].Copy()
	spec.MaxEntries = uint32(size)
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return err
	}
	if err = fill(m); err == nil {
		err = t.maps[name].Put(slot, m)
	}
	if err == nil {
		if old := t.slots[slot][name]; old != nil {
			old.Close()
			delete(t.slots[slot], name)
		}
		path := t.slotPin(slot, name)
		os.Remove(path)
		err = m.Pin(path)
	}
	if err != nil {
		m.Close()
		return err
	}
	t.slots[slot][name] = m
	return nil
}

const batchSize = 4096

// putChanged brings a map from what it has to what is wanted.
func putChanged[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	for k := range have {
		if _, stays := want[k]; stays {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	keys, values := make([]K, 0, batchSize), make([]V, 0, batchSize)
	put := func() error {
		if len(keys) == 0 {
			return nil
		}
		_, err := m.BatchUpdate(keys, values, nil)
		keys, values = keys[:0], values[:0]
		return err
	}
	for k, v := range want {
		if old, ok := have[k]; ok && old == v {
			continue
		}
		if keys, values = append(keys, k), append(values, v); len(keys) == batchSize {
			if err := put(); err != nil {
				return err
			}
		}
	}
	return put()
}

// putBlocks writes the blocks of a list that differ from those that the map has,
// and zeroes where it had more.
func putBlocks[V any](m *ebpf.Map, list []V, have, want blocks) error {
	if have.length > len(list) {
		list = append(slices.Clip(list), make([]V, have.length-len(list))...)
	}
	differs := func(block int) bool {
		return block >= len(have.sums) || block >= len(want.sums) || have.sums[block] != want.sums[block] ||
			have.length != want.length && (block == len(have.sums)-1 || block == len(want.sums)-1)
	}
	for at := 0; at < len(list); {
		end := at
		for end < len(list) && end-at < batchSize && differs(end/blockSize) {
			end = min(end+blockSize, len(list))
		}
		if end == at {
			at += blockSize
			continue
		}
		keys := make([]uint32, end-at)
		for i := range keys {
			keys[i] = uint32(at + i)
		}
		if _, err := m.BatchUpdate(keys, list[at:end], nil); err != nil {
			return err
		}
		at = end
	}
	return nil
}
