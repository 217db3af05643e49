package syscalls

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// lookupProgram gives a TCP connection that arrives in a network namespace to
// one of several listeners (program/steer.h).
const lookupProgram = "sockns_lookup"

const lookupPrefix = "link_lookup_"

// Netns is an open network namespace.
type Netns struct {
	Cookie uint64 // SO_NETNS_COOKIE
	FD     int
}

func (t *Tier) lookupPin(cookie uint64) string {
	return filepath.Join(t.dir, lookupPrefix+strconv.FormatUint(cookie, 10))
}

// openLookups opens the links that are pinned and still attached.
func (t *Tier) openLookups() error {
	pins, err := filepath.Glob(filepath.Join(t.dir, lookupPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range pins {
		cookie, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(path), lookupPrefix), 10, 64)
		if err != nil {
			return fmt.Errorf("pin %s: %w", path, err)
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("open pinned link %s: %w", path, err)
		}
		t.lookups[cookie] = l
	}
	return nil
}

func (t *Tier) checkLookups() error {
	for cookie, l := range t.lookups {
		if err := attached(l); err != nil {
			return fmt.Errorf("lookup of network namespace %d: %w", cookie, err)
		}
		if _, err := os.Stat(t.lookupPin(cookie)); err != nil {
			return fmt.Errorf("pin of lookup: %w", err)
		}
	}
	return nil
}

// Steers reports whether listeners are steered in just the network namespaces
// with these cookies, or the kernel can't do it at all.
func (t *Tier) Steers(in []uint64) bool {
	if t.variant != Cast {
		return true
	}
	for _, cookie := range in {
		if t.lookups[cookie] == nil {
			return false
		}
	}
	return len(in) == len(t.lookups) && t.checkLookups() == nil && !t.renew
}

// Steer has listeners steered in these network namespaces and no others. What
// is attached already goes on without a gap.
func (t *Tier) Steer(in []Netns) error {
	if t.variant != Cast {
		return nil
	}
	wanted := make(map[uint64]bool)
	for _, n := range in {
		wanted[n.Cookie] = true
		if err := t.steer(n); err != nil {
			return fmt.Errorf("steer listeners: %w", err)
		}
	}
	var errs []error
	for cookie, l := range t.lookups {
		if wanted[cookie] {
			continue
		}
		l.Close()
		delete(t.lookups, cookie)
		errs = append(errs, detach(t.lookupPin(cookie)))
	}
	t.renew = false
	return errors.Join(errs...)
}

func (t *Tier) steer(n Netns) error {
	l := t.lookups[n.Cookie]
	on := l != nil && attached(l) == nil
	if on && !t.renew {
		return t.pinLookup(n.Cookie, l)
	}
	prog, err := t.loadLookup(n.Cookie)
	if err != nil {
		return err
	}
	defer prog.Close()
	if on {
		return errors.Join(l.Update(prog), t.pinLookup(n.Cookie, l))
	}
	if l != nil {
		l.Close()
		delete(t.lookups, n.Cookie)
	}
	fresh, err := link.AttachNetNs(n.FD, prog)
	if err != nil {
		return err
	}
	t.lookups[n.Cookie] = fresh
	os.Remove(t.lookupPin(n.Cookie))
	return t.pinLookup(n.Cookie, fresh)
}

// pinLookup pins a link unless it is.
func (t *Tier) pinLookup(cookie uint64, l link.Link) error {
	path := t.lookupPin(cookie)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return l.Pin(path)
}

// loadLookup loads the program for one network namespace: it can't ask in
// which it runs.
func (t *Tier) loadLookup(cookie uint64) (*ebpf.Program, error) {
	s, err := spec(Cast)
	if err != nil {
		return nil, err
	}
	if err := s.Variables["own_netns"].Set(cookie); err != nil {
		return nil, err
	}
	s.Programs = map[string]*ebpf.ProgramSpec{lookupProgram: s.Programs[lookupProgram]}
	coll, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{MapReplacements: t.maps})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(lookupProgram), nil
}

// listener is struct listener of the programs.
type listener struct {
	Netns    uint64
	Asked    Address
	Identity uint32
	Port     uint16
	Turn     uint16
}

// Listeners returns what the TCP listeners that are steered asked bind(2) for,
// by their cookies (SO_COOKIE). Of one that serves both families that is the
// wildcard of IPv6.
func (t *Tier) Listeners() (map[uint64]netip.Addr, error) {
	all := make(map[uint64]netip.Addr)
	var k listener
	var cookie uint64
	each := t.maps["listeners"].Iterate()
	for each.Next(&k, &cookie) {
		if a := k.Asked.Addr(); !all[cookie].Is6() {
			all[cookie] = a
		}
	}
	if err := each.Err(); err != nil {
		return nil, fmt.Errorf("read the listeners: %w", err)
	}
	return all, nil
}
