// Package watch tells when to look again: at the cgroups, the policy files,
// the network namespaces and the addresses of a machine.
//
// Its sources are level-triggered in spirit. An event never says what is, only
// that something may have changed; whoever gets it looks for himself. So events
// may be merged, repeated and come late, but what is new is never left without
// one that comes after it. Each source sets up its watches before it returns:
// what its user looks up from then on is either seen or announced.
//
// Close of each source waits for its goroutine and releases all descriptors.
package watch

// again is a channel that holds at most one "look again".
type again chan struct{}

// set says "look again", unless that was said and not heard yet.
func (a again) set() {
	select {
	case a <- struct{}{}:
	default:
	}
}
