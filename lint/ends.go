package lint

import (
	"fmt"

	"github.com/sockns/sockns/model"
)

// ends finds peers that a rule allows and whose own rules allow none of it.
func (c *checker) ends(n *model.SocketNamespace, r *model.Rule) {
	if r.Action != model.Allow || r.Hook == model.Bind {
		return
	}
	for _, p := range r.Peers {
		m := c.names[p.Name]
		if p.Kind == model.PeerSelf {
			m = n
		}
		if m == nil || p.Kind == model.PeerGroup {
			continue
		}
		if r.Hook == model.Connect {
			c.accepted(n, r, p, m)
		} else {
			c.connected(n, r, p, m)
		}
	}
}

func (c *checker) accepted(n *model.SocketNamespace, r *model.Rule, p model.Peer, to *model.SocketNamespace) {
	e := c.lists.Connects(n, r.Index, to)
	if !e.Decides || e.Meet {
		return
	}
	what := traffic(r)
	why := fmt.Sprintf("%s may connect %s%s, but %s accepts none of it", n.Name, p, what, to.Name)
	remedy := fmt.Sprintf("let %s accept it from %s, or take %s out of the rule", to.Name, n.Name, p)
	switch {
	case e.Refuses == model.Bind:
		why = fmt.Sprintf("%s may connect %s%s, but %s may bind none of it", n.Name, p, what, to.Name)
		remedy = fmt.Sprintf("let %s bind it, or take %s out of the rule", to.Name, p)
	case len(to.Accept) == 0:
		why += ": it lists no accept rules"
	}
	c.add(Finding{
		ID: NeverAccepted, Pos: p.Pos, Namespace: n.Name, Rule: r.Words(), Message: why, Remedy: remedy,
		Related: []Related{{to.Pos, "socket namespace " + to.Name}},
	})
}

func (c *checker) connected(n *model.SocketNamespace, r *model.Rule, p model.Peer, from *model.SocketNamespace) {
	e := c.lists.Accepts(n, r.Index, from)
	if !e.Decides || e.Meet {
		return
	}
	why := fmt.Sprintf("%s accepts %s%s, but %s may connect to none of it", n.Name, p, traffic(r), from.Name)
	if len(from.Connect) == 0 {
		why += ": it lists no connect rules"
	}
	c.add(Finding{
		ID: NeverConnects, Pos: p.Pos, Namespace: n.Name, Rule: r.Words(), Message: why,
		Remedy:  fmt.Sprintf("let %s connect to %s, or take %s out of the rule", from.Name, n.Name, p),
		Related: []Related{{from.Pos, "socket namespace " + from.Name}},
	})
}

func traffic(r *model.Rule) string {
	if what := model.TrafficWords(r.Protocols, r.Ports); what != "" {
		return " " + what
	}
	return ""
}
