package main

import (
	"fmt"
	"slices"

	"github.com/sockns/sockns/controller"
)

// refused returns the open connections that a plan's policy refuses, if the
// plan changes anything.
func (c *cli) refused(host *controller.Host, plan *controller.Plan) ([]controller.Connection, error) {
	if plan.Policy == nil || !plan.Changes() {
		return nil, nil
	}
	return host.RefusedConnections(plan.Policy, plan.Facts)
}

// own reports whether the operator's connection is among them.
func own(refused []controller.Connection) bool {
	return slices.ContainsFunc(refused, func(r controller.Connection) bool { return r.Own })
}

func (c *cli) printRefused(refused []controller.Connection, revoke bool) {
	fate := "stays open, but could not be made again"
	if revoke {
		fate = "is closed"
	}
	for _, r := range refused {
		if r.Own {
			fmt.Fprintf(c.out, "%s %s from %s %s: %s\n", c.red("WARNING: THE CONNECTION THAT YOU CAME THROUGH,"), r.Socket.Local, r.Socket.Remote, fate, r.Why)
		}
	}
	const most = 20
	for i, r := range refused {
		if i == most {
			fmt.Fprintf(c.out, "%s and %s more\n", c.yellow("open:"), count(len(refused)-most, "connection"))
			break
		}
		fmt.Fprintf(c.out, "%s %s %s: %s\n", c.yellow("open:"), r, fate, r.Why)
	}
}

type connectionJSON struct {
	Device    string `json:"deviceNamespace"`
	Namespace string `json:"socketNamespace,omitempty"`
	Protocol  string `json:"protocol"`
	Local     string `json:"local"`
	Remote    string `json:"remote"`
	Why       string `json:"why"`
	Own       bool   `json:"own"`
}

func connectionsToJSON(refused []controller.Connection) []connectionJSON {
	list := []connectionJSON{}
	for _, r := range refused {
		s := r.Socket
		list = append(list, connectionJSON{r.Device, r.Namespace, s.Protocol.String(), s.Local.String(), s.Remote.String(), r.Why, r.Own})
	}
	return list
}
