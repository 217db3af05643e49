package syscalls

import (
	"cmp"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/sockns/sockns/e2e/roottest"
)

// drawProgram returns a program that is no policy, with lists of many sizes.
func drawProgram(r *rand.Rand, last *Program) *Program {
	p := &Program{}
	if last != nil && r.IntN(4) > 0 { // a small edit
		p.Members, p.Locals = slices.Clone(last.Members), slices.Clone(last.Locals)
		p.Policies, p.Entries, p.Ranges = slices.Clone(last.Policies), slices.Clone(last.Entries), slices.Clone(last.Ranges)
		for range 1 + r.IntN(3) {
			p.Entries[r.IntN(len(p.Entries))].PortFirst = uint16(1 + r.IntN(1<<16-1))
			p.Ranges[r.IntN(len(p.Ranges))].Last[3] = 1 + r.Uint32N(1<<20)
			p.Members[r.IntN(len(p.Members))].Identity = r.Uint32()
		}
		p.Entries = p.Entries[:len(p.Entries)-r.IntN(min(len(p.Entries), 2))]
		return p
	}
	for range 1 + r.IntN(600) {
		p.Policies = append(p.Policies, Policy{Connect: Span{r.Uint32N(100), 1}, Flags: OwnsAll})
	}
	for range 1 + r.IntN(3*blockSize) {
		p.Entries = append(p.Entries, Entry{Kind: Port, PortFirst: uint16(1 + r.IntN(1<<16-1)), Source: r.Uint32N(3)})
	}
	for range 1 + r.IntN(3*blockSize) {
		p.Ranges = append(p.Ranges, NumberRange(0, 1+r.Uint32N(1<<20)))
	}
	for i := range 1 + r.IntN(50) {
		p.Members = append(p.Members, Member{Cgroup: uint64(1 + i*(1+r.IntN(2))), Policy: r.Uint32N(3), Identity: 7})
	}
	p.Members = slices.CompactFunc(p.Members, func(a, b Member) bool { return a.Cgroup == b.Cgroup })
	for i := range r.IntN(9) {
		p.Locals = append(p.Locals, Local{Netns: 1, Address: Address{uint32(i)}, Owner: r.Uint32N(2)})
	}
	return p
}

// TestFill reads back what is in force after each of many programs that follow
// one another, edits and others, in settled slots and in others.
func TestFill(t *testing.T) {
	roottest.Need(t)
	tier, _, _, _ := install(t)
	r := rand.New(rand.NewPCG(1, 2))
	var p *Program
	for i := range 60 {
		p = drawProgram(r, p)
		unique := make(map[uint64]bool)
		p.Members = slices.DeleteFunc(p.Members, func(m Member) bool {
			twice := unique[m.Cgroup]
			unique[m.Cgroup] = true
			return twice
		})
		if err := tier.Swap(p); err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			tier.Settle(p)
		}
		if r.IntN(3) == 0 { // what comes and goes in between is in the next program or not
			if err := tier.Join(Member{Cgroup: 99999, Identity: 9}); err != nil {
				t.Fatal(err)
			}
			if r.IntN(2) == 0 {
				if err := tier.Leave(99999); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := tier.Program()
		if err != nil {
			t.Fatal(err)
		}
		got.Members = slices.DeleteFunc(got.Members, func(m Member) bool { return m.Cgroup == 99999 })
		for _, q := range []*Program{got, p} {
			slices.SortFunc(q.Members, func(a, b Member) int { return cmp.Compare(a.Cgroup, b.Cgroup) })
			slices.SortFunc(q.Locals, func(a, b Local) int { return slices.Compare(a.Address[:], b.Address[:]) })
		}
		if got.Netns = nil; !reflect.DeepEqual(got, p) {
			t.Fatalf("program %d: %d members, %d policies, %d entries, %d ranges and %d addresses are not as they should be (%d, %d, %d, %d, %d)", i,
				len(got.Members), len(got.Policies), len(got.Entries), len(got.Ranges), len(got.Locals), len(p.Members), len(p.Policies), len(p.Entries), len(p.Ranges), len(p.Locals))
		}
	}
}
