package graph

import (
	"fmt"
	"strings"

	"github.com/sockns/sockns/model"
)

// Words returns the flow's traffic as a label: "tcp/80,443", "everything",
// "udp/53 over 10.0.0.53".
func (f *Flow) Words() string {
	words := trafficOf(f.Protocols, f.Ports)
	if len(f.FromAddresses) > 0 {
		words += " from " + rangeWords(f.FromAddresses)
	}
	if len(f.ToAddresses) > 0 {
		words += " over " + rangeWords(f.ToAddresses)
	}
	if f.Audit {
		words += " (audit: would be refused)"
	}
	return words
}

// Words returns the traffic with which end refuses it: "tcp/80, refused by web accept default".
func (o *OneSided) Words() string {
	return trafficOf(o.Protocols, o.Ports) + ", refused by " + o.Refuses
}

func trafficOf(protocols []model.Protocol, ports Ports) string {
	if len(protocols) == len(model.Protocols) {
		protocols = nil
	}
	if words := model.TrafficWords(protocols, ports); words != "" {
		return words
	}
	return "everything"
}

// rangeWords names a few addresses, and counts the others.
func rangeWords(ranges Ranges) string {
	const most = 3
	var words []string
	for i, r := range ranges {
		if i == most {
			words = append(words, fmt.Sprintf("%d more", len(ranges)-most))
			break
		}
		words = append(words, r.String())
	}
	return strings.Join(words, ", ")
}

// Name returns the node's name as a reader sees it.
func (n *Node) Name() string {
	switch n.Kind {
	case Template:
		return n.ID + "/*"
	case Unmanaged:
		return "unmanaged"
	case Elsewhere:
		return "anywhere else"
	}
	return n.ID
}

// places returns file:line of what allows or refuses.
func (g *Graph) places() map[string]string {
	places := make(map[string]string, len(g.Rules))
	for _, r := range g.Rules {
		places[r.ID] = fmt.Sprintf("%s (%s:%d)", r.ID, r.File, r.Line)
	}
	return places
}

// mostRefused is how many of what was refused a label has.
const mostRefused = 2

// labels returns what an edge's label and its explanation say, a line each.
// What happens has the label; where nothing does, what is one-sided.
func (e *Edge) labels(places map[string]string) (label, why []string) {
	place := func(id string) string {
		if p, ok := places[id]; ok {
			return p
		}
		return id
	}
	seen := make(map[string]bool)
	for i := range e.Flows {
		f := &e.Flows[i]
		words := f.Words()
		why = append(why, words+": "+place(f.Connect)+"; "+place(f.Accept))
		if !seen[words] {
			seen[words] = true
			label = append(label, words)
		}
	}
	for i := range e.OneSided {
		o := &e.OneSided[i]
		why = append(why, o.Words()+": "+place(o.Allows)+"; "+place(o.Refuses))
		if len(e.Flows) == 0 {
			label = append(label, o.Words())
		}
	}
	if e.Hits != nil {
		label = append(label, e.Hits.Words())
	}
	for i := range e.Refused {
		r := &e.Refused[i]
		why = append(why, r.Words()+": "+place(r.By))
		if i < mostRefused {
			label = append(label, r.Words())
		}
	}
	if more := len(e.Refused) - mostRefused; more > 0 {
		label = append(label, fmt.Sprintf("%d more refused", more))
	}
	return label, why
}
