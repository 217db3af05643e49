package nft

import (
	"slices"
	"strings"
)

// Transaction is the way from one table to another: three batches to commit in
// this order. Each is atomic for the kernel; the division is what makes the
// whole atomic for packets, which read a chain's rules as of the moment they
// enter it, but a set as it is now:
//
//   - Add makes new sets and chains, complete, which no packet reaches yet;
//   - Switch makes packets see the new table: chains that change are flushed and
//     filled again in place, elements of maps deleted and added, new base chains
//     made;
//   - Clean removes sets and chains that no packet reaches any more, and the
//     elements of sets that linger.
//
// After an error between two batches the table is whole and either the old or
// the new one to packets; read it back and diff again to tidy up.
type Transaction struct {
	Add, Switch, Clean Batch
	// Rebuild is set if the way leads through the deletion of the table, all of
	// it in Switch: a set or base chain is there under its name with another
	// definition, which nothing but tampering or an upgrade does. Packets in
	// flight at that moment may see neither table.
	Rebuild bool
	// Kept lists comments that differ and stay as they are: the kernel takes
	// those of tables, sets and chains only when it makes them.
	Kept []string

	semantic bool
}

// Empty reports whether there is nothing to do.
func (t *Transaction) Empty() bool {
	return t.Add.Empty() && t.Switch.Empty() && t.Clean.Empty()
}

// Semantic reports whether the tables differ in more than comments.
func (t *Transaction) Semantic() bool { return t.semantic }

// Batches returns the batches that are not empty, in order.
func (t *Transaction) Batches() []Batch {
	var batches []Batch
	for _, b := range []Batch{t.Add, t.Switch, t.Clean} {
		if !b.Empty() {
			batches = append(batches, b)
		}
	}
	return batches
}

// String returns the transaction as commands of nft(8), the batches divided by
// comments.
func (t *Transaction) String() string {
	var s strings.Builder
	for _, part := range []struct {
		name  string
		batch *Batch
	}{{"add", &t.Add}, {"switch", &t.Switch}, {"clean", &t.Clean}} {
		if !part.batch.Empty() {
			s.WriteString("# " + part.name + "\n" + part.batch.String())
		}
	}
	return s.String()
}

// Diff returns the way from table old to table new, which have the same name.
// A nil old is an absent table, a nil new deletes it. Diff(new, old) is the way
// back.
//
// Tables are compared by what they mean to packets and by the comments of rules
// and elements. Left out are the figures of counters, paths of cgroups, notes,
// the order of sets, chains and elements, and the elements of dynamic sets and
// those with the cgroup id 0, which belong to no cgroup and are never written.
// The transaction shares memory with both tables.
func Diff(old, new *Table) Transaction {
	d := differ{old: old, new: new}
	switch {
	case old == nil && new == nil:
	case new == nil:
		d.tx.semantic = true
		d.tx.Switch.Delete(old.Name, header(old))
	case old == nil:
		d.tx.semantic = true
		d.create()
	case d.incompatible():
		d.tx.semantic = true
		d.tx.Rebuild = true
		d.tx.Switch.Delete(old.Name, header(old))
		d.create()
		d.tx.Switch.Ops = append(d.tx.Switch.Ops, d.tx.Add.Ops...)
		d.tx.Switch.Ops = append(d.tx.Switch.Ops, d.late.Ops...)
		d.tx.Add, d.late = Batch{}, Batch{}
	default:
		d.change()
	}
	d.tx.Switch.Ops = append(d.tx.Switch.Ops, d.late.Ops...)
	return d.tx
}

// differ is one comparison.
type differ struct {
	old, new *Table
	tx       Transaction
	late     Batch // goes to the end of Switch
	a, b     []expr
}

// header returns the table without its contents.
func header(t *Table) *Table { return &Table{Name: t.Name, Comment: t.Comment, Flags: t.Flags} }

// header returns the chain without its rules.
func (c *Chain) header() *Chain { return &Chain{Name: c.Name, Comment: c.Comment, Base: c.Base} }

// header returns the set without its elements and notes.
func (s *Set) header() *Set {
	h := *s
	h.Elements, h.Notes = nil, nil
	return &h
}

// create fills Add with the new table and late with its base chains.
func (d *differ) create() {
	d.tx.Add.Add(d.new.Name, header(d.new))
	d.addNew(nil, nil)
}

// addNew makes the sets and chains of the new table that are not among the old.
func (d *differ) addNew(oldSets map[string]*Set, oldChains map[string]*Chain) {
	add, name := &d.tx.Add, d.new.Name
	for i := range d.new.Sets {
		if s := &d.new.Sets[i]; oldSets[s.Name] == nil {
			d.tx.semantic = true
			add.Add(name, s.header())
		}
	}
	for _, base := range []bool{false, true} {
		batch := add
		if base {
			batch = &d.late
		}
		for i := range d.new.Chains {
			if c := &d.new.Chains[i]; oldChains[c.Name] == nil && (c.Base != nil) == base {
				d.tx.semantic = true
				batch.Add(name, c.header())
			}
		}
		for i := range d.new.Chains {
			if c := &d.new.Chains[i]; oldChains[c.Name] == nil && (c.Base != nil) == base {
				for _, r := range c.Rules {
					batch.Add(name, RuleIn{Chain: c.Name, Rule: r})
				}
			}
		}
	}
	for i := range d.new.Sets {
		s := &d.new.Sets[i]
		if oldSets[s.Name] != nil || s.Dynamic {
			continue
		}
		if elements := written(s.Elements); len(elements) > 0 {
			add.Add(name, ElementsIn{Set: s.Name, Interval: s.Interval, Elements: elements})
		}
	}
}

// written returns the elements that are written to the kernel: those without
// the cgroup id 0.
func written(elements []Element) []Element {
	if !slices.ContainsFunc(elements, Element.unwritten) {
		return elements
	}
	return slices.DeleteFunc(slices.Clone(elements), Element.unwritten)
}

func (e Element) unwritten() bool {
	return slices.ContainsFunc(e.Key, func(v Value) bool { return v.Type == TypeCgroup && v.Num == 0 })
}

// incompatible reports whether something of the old table is in the way of
// something of the new one with the same name, and can't be changed in place.
func (d *differ) incompatible() bool {
	oldSets, oldChains := d.old.setsByName(), d.old.chainsByName()
	for i := range d.new.Sets {
		s := &d.new.Sets[i]
		if o := oldSets[s.Name]; o != nil && !sameDefinition(o, s) {
			return true
		}
	}
	for i := range d.new.Chains {
		c := &d.new.Chains[i]
		if o := oldChains[c.Name]; o != nil && !sameBase(o.Base, c.Base) {
			return true
		}
	}
	return d.old.Flags&^(TableOwner|TablePersist) != d.new.Flags&^(TableOwner|TablePersist) ||
		d.old.Flags&TablePersist != d.new.Flags&TablePersist
}

func sameDefinition(a, b *Set) bool {
	return !a.Foreign && !b.Foreign && slices.Equal(a.Key, b.Key) && a.Data == b.Data &&
		a.Dynamic == b.Dynamic && a.Timeout == b.Timeout && a.Size == b.Size && a.Interval == b.Interval
}

func sameBase(a, b *Base) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b && !a.Foreign
}

func (t *Table) setsByName() map[string]*Set {
	m := make(map[string]*Set, len(t.Sets))
	for i := range t.Sets {
		m[t.Sets[i].Name] = &t.Sets[i]
	}
	return m
}

func (t *Table) chainsByName() map[string]*Chain {
	m := make(map[string]*Chain, len(t.Chains))
	for i := range t.Chains {
		m[t.Chains[i].Name] = &t.Chains[i]
	}
	return m
}

// change fills the transaction with the differences of two tables.
func (d *differ) change() {
	oldSets, oldChains := d.old.setsByName(), d.old.chainsByName()
	d.keep("table "+d.new.Name, d.old.Comment, d.new.Comment)
	if d.old.Flags != d.new.Flags {
		d.tx.semantic = true
		d.tx.Add.Add(d.new.Name, header(d.new))
	}
	d.addNew(oldSets, oldChains)
	for i := range d.new.Chains {
		c := &d.new.Chains[i]
		o := oldChains[c.Name]
		if o == nil {
			continue
		}
		d.keep("chain "+c.Name, o.Comment, c.Comment)
		if !d.sameRules(o.Rules, c.Rules) {
			if len(o.Rules) > 0 {
				d.tx.Switch.Flush(d.new.Name, c.header())
			}
			for _, r := range c.Rules {
				d.tx.Switch.Add(d.new.Name, RuleIn{Chain: c.Name, Rule: r})
			}
		}
	}
	for i := range d.new.Sets {
		s := &d.new.Sets[i]
		o := oldSets[s.Name]
		if o == nil {
			continue
		}
		d.keep(s.word()+" "+s.Name, o.Comment, s.Comment)
		if !s.Dynamic {
			d.elements(o, s)
		}
	}
	d.clean()
}

// keep notes a comment that differs and can't be changed.
func (d *differ) keep(what, old, new string) {
	if old != new {
		d.tx.Kept = append(d.tx.Kept, what)
	}
}

// sameRules compares rules by what they are encoded to, and notes in passing
// whether more than comments differs.
func (d *differ) sameRules(old, new []Rule) bool {
	if len(old) != len(new) {
		d.tx.semantic = true
		return false
	}
	same := true
	for i := range old {
		if !d.sameStatements(&old[i], &new[i]) {
			d.tx.semantic = true
			return false
		}
		if old[i].Comment != new[i].Comment {
			same = false
		}
	}
	return same
}

func (d *differ) sameStatements(a, b *Rule) bool {
	if identical(a.Statements, b.Statements) {
		return true
	}
	var errA, errB error
	d.a, errA = lower(d.a[:0], a)
	d.b, errB = lower(d.b[:0], b)
	if errA != nil || errB != nil || len(d.a) != len(d.b) {
		return false
	}
	for i := range d.a {
		x, y := &d.a[i], &d.b[i]
		if *x != *y && !(x.kind == exprCounter && y.kind == exprCounter) {
			return false
		}
	}
	return true
}

// identical reports whether statements are the same values, of the kinds that
// rules are full of. Others may be equal all the same.
func identical(a, b []Statement) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		same := false
		switch x := a[i].(type) {
		case MatchMeta:
			same = x == b[i]
		case MatchPort:
			same = x == b[i]
		case MatchAddress:
			same = x == b[i]
		case Verdict:
			same = x == b[i]
		case Counter:
			_, same = b[i].(Counter)
		}
		if !same {
			return false
		}
	}
	return true
}

// elements fills Switch with the difference of the elements of two sets, and
// Clean with what lingers.
func (d *differ) elements(old, new *Set) {
	if sameElements(old.Elements, new.Elements) {
		return
	}
	var key []byte
	if size, err := keySize(new.Key); err == nil && size <= len(shortKey{}.bytes) && !new.Interval { // which takes no memory for each
		compareElements(d, old, new, func(e *Element) (k shortKey) {
			key = appendKey(key[:0], e.Key)
			k.length = copy(k.bytes[:], key)
			return k
		})
		return
	}
	compareElements(d, old, new, func(e *Element) string {
		key = appendKey(key[:0], e.Key)
		return string(key)
	})
}

// shortKey is the key of an element if it is short.
type shortKey struct {
	bytes  [16]byte
	length int
}

func compareElements[K comparable](d *differ, old, new *Set, keyOf func(*Element) K) {
	was := make(map[K]*Element, len(old.Elements))
	for i := range old.Elements {
		e := &old.Elements[i]
		if !e.unwritten() {
			was[keyOf(e)] = e
		}
	}
	var add, remove, gone []Element
	for i := range new.Elements {
		e := &new.Elements[i]
		if e.unwritten() {
			continue
		}
		key := keyOf(e)
		o := was[key]
		if o != nil {
			delete(was, key)
			same := sameValue(o.Data, e.Data) && o.Verdict == e.Verdict
			if same && o.Comment == e.Comment {
				continue
			}
			if !same {
				d.tx.semantic = true
			}
			remove = append(remove, *o)
		} else {
			d.tx.semantic = true
		}
		add = append(add, *e)
	}
	if len(was) > 0 {
		d.tx.semantic = true
		for i := range old.Elements { // in order
			e := &old.Elements[i]
			if e.unwritten() {
				continue
			}
			if was[keyOf(e)] == e {
				gone = append(gone, *e)
			}
		}
	}
	if new.Linger && len(gone) > 0 {
		d.tx.Clean.Delete(d.new.Name, ElementsIn{Set: new.Name, Interval: new.Interval, Elements: gone})
	} else {
		remove = append(remove, gone...)
	}
	if len(remove) > 0 {
		d.tx.Switch.Delete(d.new.Name, ElementsIn{Set: new.Name, Interval: new.Interval, Elements: remove})
	}
	if len(add) > 0 {
		d.tx.Switch.Add(d.new.Name, ElementsIn{Set: new.Name, Interval: new.Interval, Elements: add})
	}
}

// sameElements reports whether elements are the same in the same order, as those of
// sets of intervals are that nobody changed. Others may be the same all the same.
func sameElements(a, b []Element) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if !slices.EqualFunc(x.Key, y.Key, sameValue) || !sameValue(x.Data, y.Data) || x.Verdict != y.Verdict || x.Comment != y.Comment {
			return false
		}
	}
	return true
}

func sameValue(a, b Value) bool {
	return a.Type == b.Type && a.Num == b.Num && a.Addr == b.Addr
}

// clean fills Clean with the removal of what only the old table has. Base chains
// among it, which nobody but a stranger leaves behind, are emptied in Switch: an
// empty one accepts, as if it were not there.
func (d *differ) clean() {
	newSets, newChains := d.new.setsByName(), d.new.chainsByName()
	name := d.new.Name
	for i := range d.old.Chains {
		c := &d.old.Chains[i]
		if newChains[c.Name] != nil {
			continue
		}
		d.tx.semantic = true
		if len(c.Rules) > 0 {
			batch := &d.tx.Clean
			if c.Base != nil {
				batch = &d.tx.Switch
			}
			batch.Flush(name, c.header())
		}
	}
	for i := range d.old.Sets {
		if s := &d.old.Sets[i]; newSets[s.Name] == nil {
			d.tx.semantic = true
			d.tx.Clean.Delete(name, s.header())
		}
	}
	for i := range d.old.Chains {
		if c := &d.old.Chains[i]; newChains[c.Name] == nil {
			d.tx.Clean.Delete(name, c.header())
		}
	}
}
