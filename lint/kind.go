package lint

// Kind is a kind of finding.
type Kind struct {
	ID    string
	Short string // what it is, in one line
	Help  string // what to do, and why it matters
}

// The ids of the kinds, which stay as they are.
const (
	ShadowedRule     = "shadowed-rule"
	UnmatchableRule  = "unmatchable-rule"
	RedundantRule    = "redundant-rule"
	NeverAccepted    = "never-accepted"
	NeverConnects    = "never-connects"
	UnreachablePeer  = "unreachable-peer"
	UnreachableLocal = "unreachable-local"
	AmbiguousBind    = "ambiguous-bind"
	UnusedGroup      = "unused-group"
	UnprotectedBirth = "unprotected-birth"
	EmptyPolicy      = "empty-policy"
	TooManyPieces    = "too-many-pieces"
	UselessIgnore    = "useless-ignore"
)

// Kinds lists all kinds.
var Kinds = []Kind{
	{ShadowedRule, "Rules before it decide every flow that the rule matches.", "The first rule that matches decides. Remove the rule, or put it before those that shadow it."},
	{UnmatchableRule, "No decision ever asks for the rule.", "The kernel does not show the receiving socket of protocols other than TCP and UDP, so accept is not asked; and a bind to port 0 on an own address needs no rule."},
	{RedundantRule, "Each flow that the rule decides would get the same answer without it.", "Remove the rule, or the one that makes it superfluous. Rules that are logged, or that give a port to a namespace, are not called redundant."},
	{NeverAccepted, "The rule lets a namespace connect to a peer that accepts nothing of it.", "Both ends have to allow a connection. Let the peer accept it (and bind the port), or take the peer out of the rule."},
	{NeverConnects, "The rule accepts a peer that may not connect to any of it.", "Both ends have to allow a connection. Let the peer connect, or take it out of the rule."},
	{UnreachablePeer, "No flow of the rule can have this peer.", "A namespace of another device namespace is known by its addresses alone, and so is every peer with protocols other than TCP and UDP. Give it addresses, or name others."},
	{UnreachableLocal, "No socket of the namespace can have this local address.", "A namespace has the addresses that it lists, loopback, and those that a bind rule with local gives it."},
	{AmbiguousBind, "Two namespaces of a device namespace may bind the same address and port.", "The first in the order of the files is asked first. Give them addresses of their own, or take the port from one."},
	{UnusedGroup, "No rule names the group.", "A name was misspelt elsewhere, a rule was forgotten, or the group can go."},
	{UnprotectedBirth, "Until a member's new cgroup is known, its sockets are unmanaged.", "A socket namespace with a parent of the cgroup among its members closes the gap."},
	{EmptyPolicy, "The policy has no socket namespaces.", "Declare some under socketNamespaces."},
	{TooManyPieces, "The rules of a list are too entangled to be looked at.", "Nothing is said of the list. Use fewer different ranges of ports and addresses together, groups, or more than one namespace."},
	{UselessIgnore, "A lint:ignore comment ignores nothing.", "Write it as `# lint:ignore ID why`, at the end of the line of the finding or on a line of its own above; remove one that is not needed any more."},
}
