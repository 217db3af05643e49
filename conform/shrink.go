package conform

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// shrink takes away lines of the policy while the flow still gets something
// else than it should.
func (d *Disagreement) shrink(m *Machine) {
	lines := strings.Split(strings.TrimRight(d.Policy, "\n"), "\n")
	for size := max(1, len(lines)/2); size > 0; size /= 2 {
		for at := 0; at+size <= len(lines); {
			less := slices.Delete(slices.Clone(lines), at, at+size)
			if d.still(m, strings.Join(less, "\n")+"\n") {
				lines = less
			} else {
				at += size
			}
		}
	}
	d.still(m, d.Policy)
}

// still reports whether a policy has a disagreement about the flow, and notes it if so.
func (d *Disagreement) still(m *Machine, text string) bool {
	p, err := d.World.Parse(text)
	if err != nil {
		return false
	}
	j, apps := &Judge{World: d.World, Policy: p, Calls: d.Calls}, d.World.Applications(p, d.Calls)
	other, err := enforce(m, j, apps, text)
	switch {
	case err != nil, other == nil && d.listens > 0, other != nil && other.listens != d.listens:
		return false
	case other != nil:
		d.Policy, d.Got, d.Expected = text, other.Got, other.Expected
		return true
	}
	want := Expected{j.Seen(d.Flow).Outcomes, apps.Try(d.Flow)}
	got, err := m.Try([]Flow{d.Flow}, func(int) bool { return want.silent() })
	if err != nil || want.Holds(got[0]) {
		return false
	}
	d.Policy, d.Got, d.Expected = text, got[0], want
	return true
}

// Scenario returns the disagreement as a scenario that holds where the policy
// is carried out: network namespaces, cgroups, the policy, one listener and
// one flow.
func (d *Disagreement) Scenario() string {
	var b strings.Builder
	name := func(device int) string { return d.World.Devices[device].Name }
	tier := "packets alone"
	if d.Calls {
		tier = "with the syscall tier"
	}
	fmt.Fprintf(&b, "# %s, %s: got %s, %s\n", d.Flow, tier, d.Got, d.Expected)
	used := []int{0}
	for i, dev := range d.World.Devices {
		if i > 0 && (i == d.Flow.Device || !d.Flow.OnlyBinds() && i == d.Flow.ToDevice || strings.Contains(d.Policy, "$NS_"+dev.Name)) {
			used = append(used, i)
		}
	}
	wire := !d.Flow.OnlyBinds() && !d.Flow.Near()
	for _, i := range used {
		dev := d.World.Devices[i]
		fmt.Fprintf(&b, "netns %s", dev.Name)
		for _, a := range dev.Addresses {
			if wire && (a == d.Flow.To.Addr() && i == d.Flow.ToDevice || a == first(dev, a.Is4()) && i == d.Flow.Device) {
				continue // on the link
			}
			fmt.Fprintf(&b, " %s/%d", a, a.BitLen())
		}
		b.WriteByte('\n')
	}
	if wire {
		bits := 64
		if d.Flow.To.Addr().Is4() {
			bits = 24
		}
		fmt.Fprintf(&b, "link %s %s/%d %s %s/%d\n", name(d.Flow.Device), first(d.World.Devices[d.Flow.Device], bits == 24), bits,
			name(d.Flow.ToDevice), d.Flow.To.Addr(), bits)
	}
	fmt.Fprintf(&b, "cgroup %s\n--- policy\n%s--- steps\n", strings.Join(Cgroups[1:], " "), d.Policy)
	at := func(device int) string {
		if device == 0 {
			return ""
		}
		return "@" + name(device)
	}
	listen := func(l Listener, said string) {
		fmt.Fprintf(&b, "listen %s%s %s %s%s\n", nameOf(l.Cgroup), at(l.Device), l.Protocol, l.Address, said)
	}
	if !d.World.Fresh {
		for _, l := range d.listeners() {
			listen(l, "")
		}
	}
	b.WriteString("apply\n")
	if d.World.Fresh {
		d.listen(listen)
	}
	if d.listens > 0 {
		return b.String()
	}
	want := make([]string, len(d.Want))
	for i, w := range d.Want {
		want[i] = strings.TrimPrefix(w, "bind ")
	}
	flow := d.Flow
	if !flow.OnlyBinds() && flow.Bind.Port() != 0 {
		fmt.Fprintf(&b, "# it bound port %d, which scenarios can't say\n", flow.Bind.Port())
		flow.Bind = netip.AddrPortFrom(flow.Bind.Addr(), 0)
	}
	step := strings.Replace(flow.in(name), "sendto ", "connect ", 1)
	fmt.Fprintf(&b, "%s = %s\n", step, strings.Join(want, "|"))
	return b.String()
}

// listen tells of those that try to listen on the flow's port in a fresh
// world, and what they should see.
func (d *Disagreement) listen(tell func(l Listener, said string)) {
	p, err := d.World.Parse(d.Policy)
	if err != nil {
		return
	}
	device, port := d.Flow.ToDevice, d.Flow.To.Port()
	if d.Flow.OnlyBinds() {
		device, port = d.Flow.Device, d.Flow.Bind.Port()
	}
	for i, s := range (&Judge{World: d.World, Policy: p, Calls: d.Calls}).Listen() {
		l := d.World.Binds[i]
		if l.Device == device && l.Protocol == d.Flow.Protocol && l.Address.Port() == port {
			tell(l, " = "+s.Outcomes[0])
		}
		if i+1 == d.listens {
			return
		}
	}
}

// listeners returns those that the flow meets.
func (d *Disagreement) listeners() []Listener {
	if !d.Flow.OnlyBinds() {
		if l := d.World.Receiver(d.Flow.ToDevice, d.Flow.Protocol, d.Flow.To); l != nil {
			return []Listener{*l}
		}
		return nil
	}
	var met []Listener
	for _, l := range d.World.Listeners {
		if l.Device == d.Flow.Device && l.Protocol == d.Flow.Protocol && l.Address.Port() == d.Flow.Bind.Port() {
			met = append(met, l)
		}
	}
	return met
}
