package nft

import (
	"fmt"
	"strings"
)

// Verb is what an operation does to its object.
type Verb uint8

// The verbs of nft(8) in use.
const (
	VerbAdd    Verb = iota // makes it; a table, chain or set that is there already is left alone
	VerbDelete             // removes it; it has to be there
	VerbFlush              // empties it: the rules of a chain, the elements of a set
)

// String returns the verb in nft(8)'s words.
func (v Verb) String() string {
	switch v {
	case VerbAdd:
		return "add"
	case VerbDelete:
		return "delete"
	case VerbFlush:
		return "flush"
	}
	return fmt.Sprintf("verb%d", uint8(v))
}

// Object is what an operation is about: *[Table], *[Chain] and *[Set], each
// alone without what it contains, [RuleIn] and [ElementsIn].
type Object interface {
	object()
}

type (
	// RuleIn is a rule at the end of a chain. It can only be added: rules leave
	// with a flush of their chain.
	RuleIn struct {
		Chain string
		Rule  Rule
	}
	// ElementsIn are elements of a set or map. They may be any number: what does
	// not fit in one netlink message goes in several of the same transaction.
	ElementsIn struct {
		Set      string
		Interval bool // as the set is
		Elements []Element
	}
)

func (*Table) object()     {}
func (*Chain) object()     {}
func (*Set) object()       {}
func (RuleIn) object()     {}
func (ElementsIn) object() {}

// Op is one operation on an object of a table of family inet.
type Op struct {
	Verb   Verb
	Table  string
	Object Object
}

// String returns the operation as a command of nft(8). Elements of a batch that
// has many are not cut: the text of a large operation is large.
func (o Op) String() string {
	var b strings.Builder
	o.write(&b)
	return b.String()
}

// write writes the command of nft(8), one line without its end.
func (o Op) write(b *strings.Builder) {
	b.WriteString(o.Verb.String())
	switch v := o.Object.(type) {
	case *Table:
		b.WriteString(" table inet " + o.Table)
		if o.Verb == VerbAdd && v.Comment != "" {
			b.WriteString(` { comment "` + v.Comment + `"; }`)
		}
		if o.Verb == VerbAdd && v.Flags != 0 {
			b.WriteString(" " + flagsLine(v.Flags))
		}
	case *Chain:
		b.WriteString(" chain inet " + o.Table + " " + v.Name)
		if o.Verb == VerbAdd && (v.Base != nil || v.Comment != "") {
			b.WriteString(" {")
			if v.Base != nil {
				b.WriteString(" " + v.Base.String())
			}
			if v.Comment != "" {
				b.WriteString(` comment "` + v.Comment + `";`)
			}
			b.WriteString(" }")
		}
	case *Set:
		b.WriteString(" " + v.word() + " inet " + o.Table + " " + v.Name)
		if o.Verb == VerbAdd {
			b.WriteString(" { ")
			for _, l := range v.specs() {
				b.WriteString(l + "; ")
			}
			if v.Comment != "" {
				b.WriteString(`comment "` + v.Comment + `"; `)
			}
			b.WriteString("}")
		}
	case RuleIn:
		b.WriteString(" rule inet " + o.Table + " " + v.Chain + " " + v.Rule.text(false))
	case ElementsIn:
		b.WriteString(" element inet " + o.Table + " " + v.Set + " { ")
		var p printer
		for i := range v.Elements {
			if i > 0 {
				b.WriteString(", ")
			}
			e := v.Elements[i]
			if o.Verb == VerbDelete {
				e = Element{Key: e.Key}
			}
			text, _ := p.element(&e, v.Interval)
			b.WriteString(text)
		}
		b.WriteString(" }")
	}
}

// Batch is a list of operations for one transaction: all of them happen or none.
type Batch struct {
	Ops []Op
	// Generation, if not zero, is the generation of the ruleset that the batch
	// was made for; [Conn.Commit] refuses it with [ErrChanged] if the kernel's
	// is another. It counts commits to any table of the network namespace.
	Generation uint32
}

// Add appends the addition of an object.
func (b *Batch) Add(table string, o Object) { b.append(VerbAdd, table, o) }

// Delete appends the removal of an object.
func (b *Batch) Delete(table string, o Object) { b.append(VerbDelete, table, o) }

// Flush appends the emptying of a chain or set.
func (b *Batch) Flush(table string, o Object) { b.append(VerbFlush, table, o) }

func (b *Batch) append(v Verb, table string, o Object) {
	b.Ops = append(b.Ops, Op{Verb: v, Table: table, Object: o})
}

// Empty reports whether there is nothing to do.
func (b *Batch) Empty() bool { return len(b.Ops) == 0 }

// String returns the batch as commands of nft(8), one a line.
func (b *Batch) String() string {
	var s strings.Builder
	for _, op := range b.Ops {
		op.write(&s)
		s.WriteByte('\n')
	}
	return s.String()
}

// describe names an object shortly, for errors: "chain web", "map accept_2".
func describe(o Object) string {
	switch v := o.(type) {
	case *Table:
		return "table " + v.Name
	case *Chain:
		return "chain " + v.Name
	case *Set:
		return v.word() + " " + v.Name
	case RuleIn:
		return "rule (" + v.Rule.text(false) + ") to chain " + v.Chain
	case ElementsIn:
		what := fmt.Sprintf("%d elements", len(v.Elements))
		word := "set"
		if len(v.Elements) > 0 && v.Elements[0].isMapping() {
			word = "map"
		}
		if len(v.Elements) == 1 {
			what = "element " + v.Elements[0].keyText()
			if v.Interval && len(v.Elements[0].Key) == 2 {
				what = "element " + rangeText(v.Elements[0].Key)
			}
		}
		return what + " to " + word + " " + v.Set
	}
	return "nothing"
}

// isMapping reports whether the element maps its key to something.
func (e *Element) isMapping() bool {
	return e.Verdict.Kind != VerdictNone || e.Data.Type != TypeNone
}

// keyText returns the key as text that need not be nft's.
func (e *Element) keyText() string {
	parts := make([]string, len(e.Key))
	for i, v := range e.Key {
		parts[i] = v.String()
	}
	return strings.Join(parts, " . ")
}
