package main

import (
	"fmt"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/model"
)

// What plan and apply tell of what a policy says in vain; lint tells all.
const (
	mostWarnings = 20
	mostLinted   = 10_000 // rules: lint takes about a second for so many
)

// planLoaded plans a policy, while it is found out what it says in vain.
func (c *cli) planLoaded(host *controller.Host, loaded *controller.Loaded) (*controller.Plan, error) {
	told := make(chan func(), 1)
	go func() {
		list, note := warnings(loaded)
		told <- func() {
			c.warn(list)
			if note != "" {
				fmt.Fprintln(c.err, "note:", note)
			}
		}
	}()
	plan, err := host.Plan(loaded.Policy)
	(<-told)()
	return plan, err
}

// warnings returns the first of a policy's warnings, and what to say of those
// that are not among them.
func warnings(loaded *controller.Loaded) (list model.Diagnostics, note string) {
	if rules := countRules(loaded.Policy); rules > mostLinted {
		return nil, fmt.Sprintf("%d rules are too many to look here for what is said in vain: sockns lint does", rules)
	}
	list = loaded.Warnings()
	if more := len(list) - mostWarnings; more > 0 {
		return list[:mostWarnings], count(more, "more warning") + ": sockns lint has all"
	}
	return list, ""
}

func countRules(p *model.Policy) int {
	var sum int
	for _, n := range p.SocketNamespaces {
		sum += len(n.Bind) + len(n.Connect) + len(n.Accept)
	}
	return sum
}
