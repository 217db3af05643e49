package syscalls

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// hook is one of the programs and where it is attached.
type hook struct {
	name   string // of the program, and of its link's pin
	attach ebpf.AttachType
	// castOnly says that only the variant with the cast has it.
	castOnly bool
}

var hooks = []hook{
	{"sockns_create", ebpf.AttachCGroupInetSockCreate, false},
	{"sockns_bind4", ebpf.AttachCGroupInet4Bind, false},
	{"sockns_bind6", ebpf.AttachCGroupInet6Bind, false},
	{"sockns_connect4", ebpf.AttachCGroupInet4Connect, false},
	{"sockns_connect6", ebpf.AttachCGroupInet6Connect, false},
	{"sockns_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, false},
	{"sockns_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, false},
	{"sockns_recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, false},
	{"sockns_recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, false},
	{"sockns_getsockname4", ebpf.AttachCgroupInet4GetSockname, false},
	{"sockns_getsockname6", ebpf.AttachCgroupInet6GetSockname, false},
	{"sockns_sockops", ebpf.AttachCGroupSockOps, true},
}

// The maps that outlive a process: those that hold the policy, and those that
// hold what happened.
var pinnedMaps = []string{"active", "members", "policies", "entries", "ranges", "locals", "decisions", "reports", "notes", "listeners", "candidates", "clients", "claims"}

// stampsMap is pinned in the variant without the cast alone, and tells it.
const stampsMap = "stamps"

func mapsOf(v Variant) []string {
	if v == Stamp {
		return append([]string{stampsMap}, pinnedMaps...)
	}
	return pinnedMaps
}

// Variant is how the programs learn which cgroup a socket was made in.
type Variant string

// The variants.
const (
	Cast  Variant = "cast"  // bpf_rdonly_cast: sockets of any age (about Linux 6.7)
	Stamp Variant = "stamp" // noted when the socket is made: only sockets that are younger than the programs
)

// Support is what this kernel and this process can do for the tier.
type Support struct {
	Variant Variant
	Why     string // why the tier can't run; empty if it can
	loaded  *ebpf.Collection
}

// Close lets go of what Probe loaded.
func (s *Support) Close() {
	if s.loaded != nil {
		s.loaded.Close()
		s.loaded = nil
	}
}

// OK reports whether the tier can run.
func (s Support) OK() bool { return s.Why == "" }

// Probe asks the kernel by loading the programs, which takes privilege
// (CAP_BPF, CAP_NET_ADMIN, and CAP_PERFMON for the cast). Nothing stays when
// it is closed.
func Probe() Support {
	if _, err := MountBpffs(); err != nil {
		return Support{Why: err.Error()}
	}
	variant, coll, err := load(nil)
	if err != nil {
		return Support{Why: reason(err)}
	}
	return Support{Variant: variant, loaded: coll}
}

// reason is an error's first line.
func reason(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// load loads the programs in the best variant that the kernel takes, on maps
// that exist already where replace has them.
func load(replace map[string]*ebpf.Map) (Variant, *ebpf.Collection, error) {
	_ = rlimit.RemoveMemlock() // before Linux 5.11
	var errs []error
	for _, variant := range []Variant{Cast, Stamp} {
		spec, err := spec(variant)
		if err != nil {
			return "", nil, err
		}
		coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
		if err == nil {
			return variant, coll, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", variant, err))
	}
	return "", nil, errors.Join(errs...)
}

func spec(variant Variant) (*ebpf.CollectionSpec, error) {
	spec, err := loadProgram()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["use_cast"].Set(variant == Cast); err != nil {
		return nil, err
	}
	// An error means that the kernel can't: reports then have no process.
	if err := spec.Variables["know_process"].Set(features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetCurrentComm) == nil); err != nil {
		return nil, err
	}
	if variant == Stamp {
		for _, h := range hooks {
			if h.castOnly {
				delete(spec.Programs, h.name)
			}
		}
		delete(spec.Programs, lookupProgram)
	}
	return spec, nil
}

// identity is of these programs in a variant: what the digest of a policy in
// force begins with.
func identity(v Variant) []byte { return append([]byte(v), _ProgramBytes...) }

// Tier is the programs of one instance of sockns in the kernel. It is not safe
// for concurrent use.
type Tier struct {
	dir     string
	variant Variant
	maps    map[string]*ebpf.Map
	links   map[string]link.Link
	inner   map[string]*ebpf.MapSpec
	slots   [2]map[string]*ebpf.Map // those that are open
	holds   [2]*content             // what is in them; nil: not known
	of      *Program                // what content is of, which was made last
	content *content
	left    bool                 // the slot that is not in force was, a moment ago
	next    *state               // what Flip puts in force; nil if the rules stay
	lookups map[uint64]link.Link // of the programs that steer, by the cookie of their netns
	renew   bool                 // lookups may run other programs than these
	// settling is the goroutine of Settle, which has the slot that is not in force
	// for itself.
	settling sync.WaitGroup
}

// dirOf returns where an instance has its pins: a directory in bpffs. instance
// is the cookie of its host device namespace.
func dirOf(instance uint64) (string, error) {
	root, err := bpffs()
	if err != nil {
		return "", err
	}
	if root == "" {
		return "", fmt.Errorf("bpffs: %w", fs.ErrNotExist)
	}
	return filepath.Join(root, "sockns", fmt.Sprint(instance)), nil
}

// Open opens what an instance has in the kernel. errors.Is(err,
// fs.ErrNotExist) if that is nothing, or only a part of what it should be.
func Open(instance uint64) (*Tier, error) {
	dir, err := dirOf(instance)
	if err != nil {
		return nil, err
	}
	t := newTier(dir, variantOf(dir))
	for _, name := range mapsOf(t.variant) {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "map_"+name), nil)
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
		t.maps[name] = m
	}
	for _, h := range hooks {
		if h.castOnly && t.variant == Stamp {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(dir, "link_"+h.name), nil)
		if err == nil {
			t.links[h.name] = l
			err = attached(l)
		}
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("open pinned link %s: %w", h.name, err)
		}
	}
	s, err := spec(t.variant)
	if err != nil {
		t.Close()
		return nil, err
	}
	t.inner = innerSpecs(s)
	return t, t.openLookups()
}

func newTier(dir string, v Variant) *Tier {
	return &Tier{
		dir: dir, variant: v, maps: make(map[string]*ebpf.Map), links: make(map[string]link.Link),
		slots: [2]map[string]*ebpf.Map{make(map[string]*ebpf.Map), make(map[string]*ebpf.Map)}, left: true, lookups: make(map[uint64]link.Link),
	}
}

func variantOf(dir string) Variant {
	if _, err := os.Stat(filepath.Join(dir, "map_"+stampsMap)); err == nil {
		return Stamp
	}
	return Cast
}

// attached reports whether a link still is: it may have been detached by
// force (bpftool link detach), or its cgroup or network namespace be gone.
func attached(l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	cg, ns := info.Cgroup(), info.NetNs()
	if (cg == nil || cg.CgroupId == 0) && (ns == nil || ns.NetnsInode == 0) {
		return fmt.Errorf("the link is detached: %w", fs.ErrNotExist)
	}
	return nil
}

func innerSpecs(s *ebpf.CollectionSpec) map[string]*ebpf.MapSpec {
	inner := make(map[string]*ebpf.MapSpec)
	for name, m := range s.Maps {
		if m.InnerMap != nil {
			inner[name] = m.InnerMap
		}
	}
	return inner
}

// Install makes an instance's programs run at the root of a cgroup tree (the
// path of its mount), with no policy until the first [Tier.Swap]. What an
// earlier process left is taken over: its maps are kept where they fit, and
// its links get these programs without ever being detached. What s loaded is
// used up.
func Install(instance uint64, cgroupRoot string, s *Support) (*Tier, error) {
	if _, err := MountBpffs(); err != nil {
		return nil, err
	}
	dir, err := dirOf(instance)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	kept := keptMaps(dir)
	variant, coll := s.Variant, s.loaded
	if s.loaded = nil; coll == nil || len(kept) > 0 {
		if coll != nil {
			coll.Close()
		}
		variant, coll, err = load(kept)
	}
	if err != nil && len(kept) > 0 {
		// Maps of another version: begin with new ones.
		kept = nil
		variant, coll, err = load(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	t := newTier(dir, variant)
	own, err := spec(variant)
	if err != nil {
		return nil, err
	}
	t.inner = innerSpecs(own)
	for _, name := range mapsOf(variant) {
		m := coll.Maps[name]
		delete(coll.Maps, name)
		t.maps[name] = m
		path := filepath.Join(dir, "map_"+name)
		if kept[name] != nil {
			continue
		}
		os.Remove(path)
		if err := m.Pin(path); err != nil {
			t.Close()
			return nil, fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	defer coll.Close()
	for _, h := range hooks {
		path := filepath.Join(dir, "link_"+h.name)
		prog := coll.Programs[h.name]
		if prog == nil {
			os.Remove(path)
			continue
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err == nil && attached(l) == nil {
			err = l.Update(prog)
		} else {
			if err == nil {
				l.Close()
				os.Remove(path)
			}
			if l, err = link.AttachCgroup(link.CgroupOptions{Path: cgroupRoot, Attach: h.attach, Program: prog}); err == nil {
				err = l.Pin(path)
			}
		}
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("attach %s: %w", h.name, err)
		}
		t.links[h.name] = l
	}
	if err := t.openLookups(); err != nil {
		t.Close()
		return nil, err
	}
	t.renew = true
	return t, nil
}

// keptMaps opens the maps that an earlier process left, all or none.
func keptMaps(dir string) map[string]*ebpf.Map {
	kept := make(map[string]*ebpf.Map)
	for _, name := range mapsOf(variantOf(dir)) {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "map_"+name), nil)
		if err != nil {
			for _, m := range kept {
				m.Close()
			}
			return nil
		}
		kept[name] = m
	}
	return kept
}

// Variant returns how the programs learn a socket's cgroup.
func (t *Tier) Variant() Variant { return t.variant }

// Check looks whether the programs still are where [Install] put them, and
// returns what is not.
func (t *Tier) Check() error {
	for name, l := range t.links {
		if err := attached(l); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		if _, err := os.Stat(filepath.Join(t.dir, "link_"+name)); err != nil {
			return fmt.Errorf("pin of link %s: %w", name, err)
		}
	}
	if err := t.checkLookups(); err != nil {
		return err
	}
	s, err := t.state()
	if err != nil {
		return err
	}
	if s.Digest != ([digestSize]byte{}) { // a policy is in force
		for _, name := range slotMaps {
			if _, err := os.Stat(t.slotPin(s.Slot, name)); err != nil {
				return fmt.Errorf("pin of map %s: %w", name, err)
			}
		}
	}
	for name := range t.maps {
		if _, err := os.Stat(filepath.Join(t.dir, "map_"+name)); err != nil {
			return fmt.Errorf("pin of map %s: %w", name, err)
		}
	}
	return nil
}

// Close closes what this process has open. The programs go on.
func (t *Tier) Close() {
	t.settling.Wait()
	for _, m := range t.maps {
		m.Close()
	}
	for _, open := range t.slots {
		for _, m := range open {
			m.Close()
		}
	}
	for _, l := range t.links {
		l.Close()
	}
	for _, l := range t.lookups {
		l.Close()
	}
}

// Remove detaches the programs of an instance and removes its pins. It is no
// error if there are none.
func Remove(instance uint64) error {
	dir, err := dirOf(instance)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	pins, err := filepath.Glob(filepath.Join(dir, "link_*"))
	errs = append(errs, err)
	for _, path := range pins {
		errs = append(errs, detach(path))
	}
	if err := os.RemoveAll(dir); err != nil {
		errs = append(errs, err)
	}
	_ = os.Remove(filepath.Dir(dir)) // if this was the last instance
	return errors.Join(errs...)
}

// detach detaches a pinned link, which another process may hold open, and
// removes its pin.
func detach(path string) error {
	var err error
	if l, open := link.LoadPinnedLink(path, nil); open == nil {
		if d, ok := l.(interface{ Detach() error }); ok && attached(l) == nil {
			err = d.Detach()
		}
		l.Close()
	}
	return errors.Join(err, os.Remove(path))
}

// Exists reports whether an instance has anything in the kernel.
func Exists(instance uint64) bool {
	dir, err := dirOf(instance)
	if err != nil {
		return false
	}
	_, err = os.Stat(dir)
	return err == nil
}

// current reports whether the links run these programs, with the rules of a
// digest, which is in the state in force. Its maps have to be within reach too.
func (t *Tier) current(digest [digestSize]byte) (bool, error) {
	s, err := t.state()
	if err != nil {
		return false, err
	}
	for _, name := range slotMaps {
		if _, err := os.Stat(t.slotPin(s.Slot, name)); err != nil {
			return false, nil
		}
	}
	return s.Digest == digest, nil
}
