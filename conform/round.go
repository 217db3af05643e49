package conform

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

// A round is a world, some policies in force one after the other, and flows
// under each. All of it follows from two numbers.
const (
	policiesEach = 3    // in a round
	flowsOfEach  = 2000 // under a policy
	retries      = 2    // of a flow that gets something else than it should
)

// Round plays one round on the kernel. In every second one packets alone
// decide; the others have the syscall tier, and of these every second one
// sockets that begin to listen under each policy anew.
type Round struct {
	Seed  uint64
	Index int
	// Shrink looks for the least policy that shows a disagreement.
	Shrink bool
}

// Tally is what rounds have come to.
type Tally struct {
	Decisions, Policies int
	// Again counts flows that got what they should only when tried again.
	Again int
	Seen  map[string]int // by outcome; a name counts as connected
}

// Disagreement is a flow that gets something else than the policy says.
type Disagreement struct {
	Calls  bool
	World  *World
	Policy string // its text
	Flow   Flow
	Got    string
	Expected
	listens int // from 1: the flow is this one of the world's binds
}

// Expected is what a flow should get.
type Expected struct {
	Want      []string // what the policy says: one of them
	Simulated string   // what the compiled policy does, simulated
}

// Holds reports whether what a flow gets is what the policy says and what the
// simulation foretells.
func (e Expected) Holds(got string) bool {
	return slices.Contains(e.Want, got) && got == e.Simulated
}

func (e Expected) silent() bool { return slices.Contains(e.Want, Silence) }

// String names what is expected.
func (e Expected) String() string {
	return "want " + strings.Join(e.Want, " or ") + "; simulated: " + e.Simulated
}

// Play plays the round and returns the first disagreement, if there is one.
// The calling goroutine has to be locked to its thread, see [OpenMachine].
func (r Round) Play(count func(Tally)) (*Disagreement, error) {
	random := rand.New(rand.NewPCG(r.Seed, uint64(r.Index)))
	w := NewWorld(random)
	if r.Index%4 == 3 {
		w = NewFreshWorld(random)
	}
	m, err := OpenMachine(w, r.Index%2 == 1)
	if err != nil {
		return nil, err
	}
	d, err := r.play(m, random, count)
	if err == nil && d != nil && r.Shrink {
		d.shrink(m)
	}
	if closed := m.Close(); err == nil {
		err = closed
	}
	return d, err
}

func (r Round) play(m *Machine, random *rand.Rand, count func(Tally)) (*Disagreement, error) {
	w := m.World
	drawn := modeltest.YAML(w.Options())
	for range policiesEach {
		text := drawn.Example(int(random.Uint32()))
		p, err := w.Parse(text)
		if err != nil {
			return nil, err
		}
		judge, apps := &Judge{World: w, Policy: p, Calls: m.Calls}, w.Applications(p, m.Calls)
		d, err := enforce(m, judge, apps, text)
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, text)
		}
		if d == nil {
			aim := NewAim(judge, []model.Protocol{model.TCP, model.UDP}, true)
			d, err = hold(m, aim, apps, draw(aim, random, flowsOfEach), count)
		}
		if err != nil {
			return nil, err
		}
		if d != nil {
			d.Calls, d.World, d.Policy = m.Calls, w, text
			return d, nil
		}
	}
	return nil, nil
}

// enforce puts a policy in force. In a fresh world its sockets listen then; what
// they see is held against what they should.
func enforce(m *Machine, j *Judge, apps *Applications, text string) (*Disagreement, error) {
	if m.World.Fresh {
		if err := m.Silence(); err != nil {
			return nil, err
		}
	}
	if err := m.Apply(text); err != nil {
		return nil, err
	}
	if err := m.ForgetClaims(); err != nil || !m.World.Fresh {
		return nil, err
	}
	got, err := m.Listen(m.World.Binds)
	if err != nil {
		return nil, err
	}
	simulated := apps.Listen()
	for i, s := range j.Listen() {
		if want := (Expected{s.Outcomes, simulated[i]}); !want.Holds(got[i]) {
			return &Disagreement{Flow: m.World.Binds[i].bind(), Got: got[i], Expected: want, listens: i + 1}, nil
		}
	}
	return nil, nil
}

// draw draws flows that don't get in one another's way: no two bind the same
// address and port, and none an address of loopback that another one asks for.
func draw(a *Aim, random *rand.Rand, n int) []Flow {
	type bound struct {
		device   int
		protocol model.Protocol
		local    netip.AddrPort
	}
	of := func(f Flow) bound { return bound{f.Device, f.Protocol, f.Bind} }
	taken := make(map[bound]bool)
	for _, l := range a.Judge.World.Binds {
		taken[of(l.bind())] = true
	}
	flows := make([]Flow, n)
	for i := range flows {
		flows[i] = a.Draw(random.IntN)
		if f := flows[i]; f.OnlyBinds() && f.Bind.Addr() == loopbacks[0] {
			taken[of(f)] = true
		}
	}
	for i := range flows {
		if f := &flows[i]; !f.OnlyBinds() && f.Bind.Port() != 0 {
			if taken[of(*f)] {
				f.Bind = netip.AddrPort{}
			}
			taken[of(*f)] = true
		}
	}
	return flows
}

// hold makes the flows on the machine and holds what they get against what they
// should: first those that only bind, one worker after the other, then the
// others at the same time.
func hold(m *Machine, a *Aim, apps *Applications, flows []Flow, count func(Tally)) (*Disagreement, error) {
	tally := Tally{Policies: 1, Decisions: len(flows), Seen: make(map[string]int)}
	groups := make(map[string][]Flow)
	const together = "all" // no cgroup is called so
	for _, f := range flows {
		if f.OnlyBinds() {
			groups[f.Cgroup] = append(groups[f.Cgroup], f)
		} else {
			groups[together] = append(groups[together], f)
		}
	}
	var first *Disagreement
	for _, name := range append(slices.Clone(Cgroups), together) {
		group := groups[name]
		if len(group) == 0 {
			continue
		}
		want := make([]Expected, len(group))
		for i, f := range group {
			want[i] = Expected{a.Judge.Seen(f).Outcomes, apps.Try(f)}
		}
		got, err := m.Try(group, func(i int) bool { return want[i].silent() })
		if err != nil {
			return nil, err
		}
		for i, f := range group {
			said := got[i]
			for n := 0; n < retries && !want[i].Holds(said); n++ {
				once, err := m.Try([]Flow{f}, func(int) bool { return want[i].silent() })
				if err != nil {
					return nil, err
				}
				if said = once[0]; want[i].Holds(said) {
					tally.Again++
				}
			}
			if !want[i].Holds(said) && first == nil {
				first = &Disagreement{Flow: f, Got: said, Expected: want[i]}
			}
			tally.Seen[kind(said)]++
			if first != nil {
				tally.Decisions = i + 1
				count(tally)
				return first, nil
			}
		}
	}
	count(tally)
	return nil, nil
}

// kind joins outcomes that differ in a name only.
func kind(outcome string) string {
	if outcome == nameOf("") || slices.Contains(Cgroups, outcome) {
		return "connected"
	}
	return outcome
}
