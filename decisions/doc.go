// Package decisions makes one stream of events out of what the two tiers tell:
// the calls that the programs report, and the packets that the tables log. A
// refusal that both could tell of is one event, and one that is repeated is
// counted. It is pure: no I/O and no clock.
package decisions
