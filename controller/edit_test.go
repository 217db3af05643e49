package controller

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/sockns/sockns/events"
)

// editedPolicy is a policy of so many namespaces that they share their rules. Each of
// them has one of a few variants.
func editedPolicy(base string, variants []int, group string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: sockns/v1\ngroups: {corp: %s}\nsocketNamespaces:\n", group)
	for i, v := range variants {
		fmt.Fprintf(&b, "  n%03d:\n    members: [{cgroup: %s/%d}]\n", i, base, i%5*1000+i)
		switch v % 4 {
		case 0:
			fmt.Fprintf(&b, "    connect: [{protocol: tcp, ports: %d, to: n%03d}]\n", 1000+v, v)
		case 1:
			fmt.Fprintf(&b, "    connect: [{protocol: [tcp, udp], ports: %d, to: corp}]\n    accept:\n\n      - {action: deny, protocol: udp, error: EHOSTUNREACH}\n", 1000+v)
		case 2:
			fmt.Fprintf(&b, "    addresses: 127.0.0.%d\n    bind: [{protocol: tcp, ports: %d}]\n", 2+v, 80+v)
		case 3:
			fmt.Fprintf(&b, "    mode: audit\n    connect: [{protocol: tcp, to: self, log: true}]\n")
		}
	}
	return b.String()
}

// longGroup is a list that becomes sets of ranges and of single addresses, in which
// one of either follows from a number.
func longGroup(n int) string {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "10.1.%d.0/25, 10.2.0.%d, ", 2*i, 2*i)
	}
	return fmt.Sprintf("[%s10.3.%d.0/24, 10.4.0.%d]", b.String(), n, 2*n)
}

// TestEdits edits a policy that is in force, over and over, while cgroups come
// and go. What the kernel has must be what the whole policy compiles to each
// time, in both tiers.
func TestEdits(t *testing.T) {
	var cgroups []string
	for i := range 5 {
		cgroups = append(cgroups, fmt.Sprint(i*1000+i))
	}
	base := makeCgroups(t, cgroups...)
	inNetns(t, func(t *testing.T, h *Host) {
		random := rand.New(rand.NewPCG(3, 4))
		variants := make([]int, mostShared+20)
		for i := range variants {
			variants[i] = random.IntN(12)
		}
		group := "[10.0.0.1, 10.0.0.2]"
		r := runReconciler(t, h, editedPolicy(base, variants, group))
		defer r.stop()
		alone := 0
		const edits = 25
		for i := range edits {
			switch random.IntN(8) {
			case 0:
				group = fmt.Sprintf("[10.0.%d.0/24]", i)
			case 2, 3:
				group = longGroup(i)
			case 1:
				variants = append(variants, random.IntN(12))
			default:
				for range 1 + random.IntN(3) {
					variants[random.IntN(len(variants))] = random.IntN(12)
				}
			}
			if random.IntN(2) == 0 {
				dir := h.Cgroups.Dir(base + "/" + cgroups[random.IntN(len(cgroups))])
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
				r.wait(events.MemberLeft)
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Error(err)
				}
				r.wait(events.MemberJoined)
			}
			r.write(editedPolicy(base, variants, group))
			r.wait(events.Reconciled)
			changes, err := ask(context.Background(), r.Reconciler, func() (string, error) {
				if len(r.inForce.program.Devices) > 0 {
					alone++
				}
				plan, _, err := r.host.planPolicy(r.good.Policy, false)
				if err != nil {
					return "", err
				}
				text := ""
				for _, d := range plan.Devices {
					text += d.Change.String()
				}
				if plan.Calls.Change {
					text += "the syscall tier differs"
				}
				return text, nil
			})
			if err != nil || changes != "" {
				t.Errorf("after edit %d the kernel is not as it should be: %v\n%s", i, err, changes)
				return
			}
		}
		if alone < edits/2 {
			t.Errorf("%d of %d edits wrote the difference alone", alone, edits)
		}
	})
}

// mostShared is about how many namespaces have rules of their own, although
// others have the same.
const mostShared = 128
