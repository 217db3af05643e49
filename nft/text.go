package nft

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// TextOptions say how a table is printed.
type TextOptions struct {
	// CgroupPath names a cgroup by its id, for values without a path of their
	// own (those that were read from the kernel). It may be nil, and returns ""
	// for an id that it does not know.
	CgroupPath func(id uint64) string
	// CgroupPrefix is put before each cgroup's path. nft(8) looks paths up
	// below /sys/fs/cgroup, so it is "" where cgroup2 is mounted there and
	// "unified/" on a machine with hybrid cgroups.
	CgroupPrefix string
	// Counters prints the figures of counters and not just the word.
	Counters bool
}

// String returns the table as nft(8) text; see [Table.Text].
func (t *Table) String() string { return t.Text(TextOptions{}) }

// Text returns the table as text that nft(8) reads (nft -f) and a person can
// follow: its sets, then the chains that are jumped to, then the base chains.
// What nft's grammar has no words for stands there as a comment: elements whose
// cgroup has no known path or the id 0, which no cgroup has, and rules with
// [Foreign] statements.
func (t *Table) Text(opts TextOptions) string {
	p := printer{opts: opts}
	p.table(t)
	return p.b.String()
}

// printer writes nft text, remembering what the lines have in common.
type printer struct {
	b    strings.Builder
	opts TextOptions
}

func (p *printer) line(indent int, parts ...string) {
	for range indent {
		p.b.WriteByte('\t')
	}
	for _, s := range parts {
		p.b.WriteString(s)
	}
	p.b.WriteByte('\n')
}

func (p *printer) table(t *Table) {
	p.line(0, "table inet ", t.Name, " {")
	if t.Flags != 0 {
		p.line(1, flagsLine(t.Flags))
	}
	first := t.Flags == 0
	if t.Comment != "" {
		p.line(1, `comment "`, t.Comment, `"`)
		first = false
	}
	gap := func() {
		if !first {
			p.b.WriteByte('\n')
		}
		first = false
	}
	for i := range t.Sets {
		gap()
		p.set(&t.Sets[i])
	}
	for _, base := range []bool{false, true} {
		for i := range t.Chains {
			if (t.Chains[i].Base != nil) == base {
				gap()
				p.chain(&t.Chains[i])
			}
		}
	}
	p.line(0, "}")
}

// flagsLine prints the flags as a comment: nft -f could not keep a table that
// its own socket owns, and older versions don't know "persist".
func flagsLine(f TableFlags) string { return "# flags " + f.String() }

// String returns the flags in nft(8)'s words.
func (f TableFlags) String() string {
	var names []string
	if f&TableOwner != 0 {
		names = append(names, "owner")
	}
	if f&TablePersist != 0 {
		names = append(names, "persist")
	}
	if rest := f &^ (TableOwner | TablePersist); rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, ",")
}

// word returns "map" or "set".
func (s *Set) word() string {
	if s.IsMap() {
		return "map"
	}
	return "set"
}

// typeText returns the type of a set as in "type a . b : verdict".
func (s *Set) typeText() string {
	names := make([]string, len(s.Key))
	for i, k := range s.Key {
		names[i] = k.String()
	}
	text := strings.Join(names, " . ")
	if s.IsMap() {
		text += " : " + s.Data.String()
	}
	return text
}

// specs returns the lines of a set but for its comment and elements.
func (s *Set) specs() []string {
	lines := []string{"type " + s.typeText()}
	if s.Size != 0 {
		lines = append(lines, fmt.Sprintf("size %d", s.Size))
	}
	var flags []string
	if s.Dynamic {
		flags = append(flags, "dynamic")
	}
	if s.Timeout != 0 {
		flags = append(flags, "timeout")
	}
	if s.Interval {
		flags = append(flags, "interval")
	}
	if flags != nil {
		lines = append(lines, "flags "+strings.Join(flags, ","))
	}
	if s.Timeout != 0 {
		lines = append(lines, "timeout "+timeout(s.Timeout))
	}
	return lines
}

func (p *printer) set(s *Set) {
	p.line(1, s.word(), " ", s.Name, " {")
	for _, note := range s.Notes {
		for l := range strings.SplitSeq(note, "\n") {
			p.line(2, "# ", l)
		}
	}
	if s.Foreign {
		p.line(2, "# has properties that are not shown")
	}
	for _, l := range s.specs() {
		p.line(2, l)
	}
	if s.Comment != "" {
		p.line(2, `comment "`, s.Comment, `"`)
	}
	texts := make([]string, 0, len(s.Elements))
	for i := range s.Elements {
		text, ok := p.element(&s.Elements[i], s.Interval)
		if !ok {
			p.line(2, "# ", text)
			continue
		}
		texts = append(texts, text)
	}
	for i, text := range texts {
		before, after := "             ", ","
		if i == 0 {
			before = "elements = { "
		}
		if i == len(texts)-1 {
			after = " }"
		}
		p.line(2, before, text, after)
	}
	p.line(1, "}")
}

// element returns the text of an element, and whether nft reads it.
func (p *printer) element(e *Element, interval bool) (text string, ok bool) {
	ok = true
	var b strings.Builder
	fields := e.Key
	if interval && len(e.Key) == 2 {
		b.WriteString(rangeText(e.Key))
		fields = nil
	}
	for i := range fields {
		if i > 0 {
			b.WriteString(" . ")
		}
		v, valid := p.value(e.Key[i])
		b.WriteString(v)
		ok = ok && valid
	}
	if e.Comment != "" {
		b.WriteString(` comment "` + e.Comment + `"`)
	}
	switch {
	case e.Verdict.Kind != VerdictNone:
		b.WriteString(" : " + e.Verdict.String())
	case e.Data.Type != TypeNone:
		v, valid := p.value(e.Data)
		b.WriteString(" : " + v)
		ok = ok && valid
	}
	return b.String(), ok
}

// value returns the text of a value, and whether nft reads it.
func (p *printer) value(v Value) (text string, ok bool) {
	if v.Type != TypeCgroup {
		return v.String(), true
	}
	path := v.Text
	if path == "" && p.opts.CgroupPath != nil && v.Num != 0 {
		path = p.opts.CgroupPath(v.Num)
	}
	if path == "" {
		return fmt.Sprintf("<cgroup %d>", v.Num), false
	}
	return `"` + p.opts.CgroupPrefix + path + `"`, v.Num != 0 && checkQuoted(path) == nil
}

// String returns the hook in nft(8)'s words.
func (h Hook) String() string {
	switch h {
	case 0:
		return "prerouting"
	case HookInput:
		return "input"
	case 2:
		return "forward"
	case HookOutput:
		return "output"
	case 4:
		return "postrouting"
	}
	return fmt.Sprintf("hook%d", uint32(h))
}

// String returns the line that makes a chain a base chain.
func (b *Base) String() string {
	text := fmt.Sprintf("type filter hook %s priority %d; policy accept;", b.Hook, b.Priority)
	if b.Foreign {
		text = "# " + text + " (or other type, policy, device)"
	}
	return text
}

func (p *printer) chain(c *Chain) {
	p.line(1, "chain ", c.Name, " {")
	if c.Comment != "" {
		p.line(2, `comment "`, c.Comment, `"`)
	}
	if c.Base != nil {
		p.line(2, c.Base.String())
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		before := ""
		if r.foreign() {
			before = "# "
		}
		p.line(2, before, r.text(p.opts.Counters))
	}
	p.line(1, "}")
}

// String returns the rule as nft(8) text, with its comment.
func (r Rule) String() string { return r.text(true) }

func (r *Rule) text(counters bool) string {
	var b strings.Builder
	reset := r.resetDependency()
	for i, s := range r.Statements {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i == reset {
			b.WriteString("meta l4proto tcp ")
		}
		if _, ok := s.(Counter); ok && !counters {
			s = Counter{}
		}
		b.WriteString(s.String())
	}
	if r.Comment != "" {
		if len(r.Statements) > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(`comment "` + r.Comment + `"`)
	}
	return b.String()
}

// resetDependency returns the place of a reject with tcp reset that needs the
// match of TCP in front of it, else -1. Lowering puts the match there; nft would
// put it in front of the whole rule, where it changes what a counter counts.
func (r *Rule) resetDependency() int {
	for i, s := range r.Statements {
		if reject, ok := s.(Reject); ok && reject.TCPReset {
			var l lowering
			for _, before := range r.Statements[:i] {
				_ = l.statement(before)
			}
			if !l.dep.l4known || l.dep.l4proto != unix.IPPROTO_TCP {
				return i
			}
		}
	}
	return -1
}

// foreign reports whether the rule has a statement without a text.
func (r *Rule) foreign() bool {
	for _, s := range r.Statements {
		if _, ok := s.(Foreign); ok {
			return true
		}
	}
	return false
}
