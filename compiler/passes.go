package compiler

// Passes are the optimising passes of a compilation. None changes what is
// decided, each makes it cheaper; they can be left out to see what they are worth,
// and to test that.
type Passes uint16

// The passes, in the order in which they have their effect.
const (
	// PassAlike lowers namespaces that say the same once: where thousands share
	// few policies that is nearly all of the work.
	PassAlike Passes = 1 << iota
	// PassMerge makes one range of adjacent and overlapping ports or addresses: a
	// rule each is what they cost.
	PassMerge
	// PassSets makes sets of long lists of addresses and ports, where a lookup is
	// cheaper than a rule for each: rules are linear, for packets and in memory,
	// and each list is in several of a policy's chains.
	PassSets
	// PassDead leaves out what comes after a rule that matches everything that
	// gets there, and rules that allow what the default allows as well.
	PassDead
	// PassTransports writes a list for TCP and for UDP where each would pass
	// several rules of the other.
	PassTransports
	// PassLate asks what is dear to know (who receives? is it an answer? are both
	// ends in one namespace?) where a list first needs it, not at its beginning.
	PassLate
	// PassShare gives namespaces with the same rules the same chains. Memory and
	// the time of an apply follow the number of policies then, not of namespaces.
	PassShare

	// AllPasses are those of [Compile].
	AllPasses = PassAlike | PassMerge | PassSets | PassDead | PassTransports | PassLate | PassShare
)

func (p Passes) has(pass Passes) bool { return p&pass != 0 }
