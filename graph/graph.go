// Package graph tells who may talk to whom under a policy.
//
// [Build] finds, for each pair of ends, exactly the flows that [model.Decide]
// allows, with the rules that allow them at both ends. [Graph.DOT] and
// [Graph.Mermaid] print them; package graph/page makes a page of them. The
// package is pure.
package graph

import (
	"encoding/json"
	"fmt"

	"github.com/sockns/sockns/model"
)

// Graph is who may talk to whom. Nodes are in the order of the policy, what is
// outside of it last; edges are in the order of their nodes.
type Graph struct {
	Nodes []Node `json:"nodes"`
	Edges []Edge `json:"edges"`
	Rules []Rule `json:"rules"` // of all namespaces, in the order of the policy
	// Live is what a controller counted, if there is one.
	Live *Live `json:"live,omitempty"`
}

// Kind says what a node is.
type Kind string

// The kinds of nodes.
const (
	Namespace Kind = "namespace" // a socket namespace
	Template  Kind = "template"  // all instances of a template
	Unmanaged Kind = "unmanaged" // sockets of a device namespace that no socket namespace claims
	Group     Kind = "group"     // addresses elsewhere, by the name of their group
	Address   Kind = "address"   // addresses elsewhere, as a rule names them
	Elsewhere Kind = "elsewhere" // addresses elsewhere that the rules of the other end do not name
)

// Outside reports whether the node's sockets are none of this policy's device
// namespaces.
func (k Kind) Outside() bool { return k == Group || k == Address || k == Elsewhere }

// Node is an end of flows.
type Node struct {
	ID        string   `json:"id"` // unique: a name, "unmanaged@host", an address, "elsewhere"
	Kind      Kind     `json:"kind"`
	Device    string   `json:"deviceNamespace,omitempty"` // none for what is outside
	Audit     bool     `json:"audit,omitempty"`           // its rules refuse nothing yet
	Members   []string `json:"members,omitempty"`
	Addresses Ranges   `json:"addresses,omitempty"`
	// Within are the flows between two sockets of the same namespace (of the
	// same instance, for a template).
	Within []Flow `json:"within,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

// Edge is what one node may send to another.
type Edge struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Flows []Flow `json:"flows,omitempty"`
	// OneSided is what a rule of one end allows the other by name, and the
	// other end refuses.
	OneSided []OneSided `json:"oneSided,omitempty"`
	// Refused is what was refused, the most frequent first, and Hits how often
	// something was allowed, if there is a controller that tells.
	Refused []Refused `json:"refused,omitempty"`
	Hits    *Hits     `json:"hits,omitempty"`
}

// Named reports whether a rule of one end speaks of the other end, for some
// flow, or something was refused. The other edges exist because both ends allow
// anybody.
func (e *Edge) Named() bool {
	for _, f := range e.Flows {
		if f.Named {
			return true
		}
	}
	return len(e.OneSided)+len(e.Refused) > 0
}

// Flow is a set of flows that the same rules allow: all combinations of its
// protocols, ports and addresses.
type Flow struct {
	Protocols []model.Protocol `json:"protocols"`       // never empty
	Ports     Ports            `json:"ports,omitempty"` // of the listening end; empty: all
	// Local addresses of the two ends; empty: all that the end may bind. The
	// connecting end's port is one that the kernel picks.
	FromAddresses Ranges `json:"fromAddresses,omitempty"`
	ToAddresses   Ranges `json:"toAddresses,omitempty"`
	// What allows it: the ID of a rule, "NAMESPACE HOOK default", or a [model.Reason].
	Connect string `json:"connect"`
	Accept  string `json:"accept"`
	// Audit is set if an end refuses the flow and does not carry that out: it
	// will be refused once mode is enforce.
	Audit bool `json:"audit,omitempty"`
	// Named is set if one of the two rules is about the other end, and not about
	// anybody; towards [Elsewhere], if it is about anybody.
	Named bool `json:"named,omitempty"`
}

// OneSided is traffic that one end allows and the other never.
type OneSided struct {
	Hook      model.Hook       `json:"-"` // of the rule that allows
	Protocols []model.Protocol `json:"protocols"`
	Ports     Ports            `json:"ports,omitempty"`
	Allows    string           `json:"allows"`  // ID of the rule
	Refuses   string           `json:"refuses"` // as Flow.Connect
}

// Rule is a rule of the policy as the graph names it.
type Rule struct {
	ID        string `json:"id"` // "web connect#1", as status and logs call it
	Namespace string `json:"namespace"`
	Hook      string `json:"hook"`
	Words     string `json:"words"` // "may connect db tcp/5432"
	Action    string `json:"action"`
	File      string `json:"file"`
	Line      int    `json:"line"`
}

// RuleID returns the ID of a rule of a namespace: "web connect#1".
func RuleID(namespace string, r *model.Rule) string {
	return fmt.Sprintf("%s %s#%d", namespace, r.Hook, r.Index)
}

// DefaultID returns what stands for the default of a hook of a namespace.
func DefaultID(namespace string, h model.Hook) string {
	return namespace + " " + h.String() + " default"
}

// Ports are ranges that are sorted and do not meet; in JSON a list of "80" and
// "8000-8080".
type Ports []model.PortRange

// MarshalJSON implements [json.Marshaler].
func (p Ports) MarshalJSON() ([]byte, error) { return marshalWords(p) }

// Ranges are addresses, sorted, IPv4 first; in JSON a list of addresses,
// prefixes and ranges.
type Ranges []model.AddressRange

// MarshalJSON implements [json.Marshaler].
func (r Ranges) MarshalJSON() ([]byte, error) { return marshalWords(r) }

// marshalWords writes a list of what it calls itself.
func marshalWords[T interface{ String() string }](list []T) ([]byte, error) {
	words := make([]string, len(list))
	for i, item := range list {
		words[i] = item.String()
	}
	return json.Marshal(words)
}
