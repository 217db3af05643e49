package main

import (
	"fmt"
	"slices"

	"github.com/sockns/sockns/controller"
)

// refused returns the sockets that a plan's policy refuses, if the plan
// changes anything or they are asked for.
func (c *cli) refused(host *controller.Host, plan *controller.Plan, asked bool) ([]controller.RefusedSocket, error) {
	if plan.Policy == nil || !plan.Changes() && !asked {
		return nil, nil
	}
	return host.RefusedSockets(plan.Policy, plan.Facts)
}

// own reports whether the operator's connection is among them.
func own(refused []controller.RefusedSocket) bool {
	return slices.ContainsFunc(refused, func(r controller.RefusedSocket) bool { return r.Own })
}

// fate says what becomes of a refused socket.
func fate(r controller.RefusedSocket, revoke bool) string {
	switch {
	case revoke && r.Closable():
		return "is closed"
	case r.Connection():
		return "stays open, but could not be made again"
	case revoke:
		return "can't be closed: it is inert, nothing reaches it and nothing leaves it"
	default:
		return "becomes inert: nothing reaches it and nothing leaves it"
	}
}

func (c *cli) printRefused(refused []controller.RefusedSocket, revoke bool) {
	for _, r := range refused {
		if r.Own {
			fmt.Fprintf(c.out, "%s %s from %s %s: %s\n", c.red("WARNING: THE CONNECTION THAT YOU CAME THROUGH,"), r.Socket.Local, r.Socket.Remote, fate(r, revoke), r.Why)
		}
	}
	const most = 20
	for i, r := range refused {
		if i == most {
			fmt.Fprintf(c.out, "%s and %s more\n", c.yellow("open:"), count(len(refused)-most, "socket"))
			break
		}
		fmt.Fprintf(c.out, "%s %s %s: %s\n", c.yellow("open:"), r, fate(r, revoke), r.Why)
	}
}

type socketJSON struct {
	Device    string `json:"deviceNamespace"`
	Namespace string `json:"socketNamespace,omitempty"`
	Protocol  string `json:"protocol"`
	State     string `json:"state"`
	Closable  bool   `json:"closable"`
	Local     string `json:"local"`
	Remote    string `json:"remote"`
	Why       string `json:"why"`
	Own       bool   `json:"own"`
}

func socketsToJSON(refused []controller.RefusedSocket) []socketJSON {
	list := []socketJSON{}
	for _, r := range refused {
		s, local := r.Socket, r.Socket.Local
		if !r.Connection() {
			local = r.Bound
		}
		list = append(list, socketJSON{r.Device, r.Namespace, s.Protocol.String(), s.State.String(), r.Closable(), local.String(), s.Remote.String(), r.Why, r.Own})
	}
	return list
}
