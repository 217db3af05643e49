package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrChanged is the error of a commit whose batch names a generation that is not
// the kernel's: somebody has committed since.
var ErrChanged = errors.New("nft: ruleset has changed since the batch was made")

// ErrUnknown is the error of a commit whose outcome is not known, because the
// kernel ran out of memory for the answer and others committed at the same time:
// read the table back. It is not to be expected.
var ErrUnknown = errors.New("nft: kernel's answer to a commit was lost")

// CommitError is the error of a batch that the kernel refused, with each
// operation that it had something to say about. Nothing of the batch happened.
type CommitError struct {
	Failures []Failure
}

// Failure is one operation that was refused.
type Failure struct {
	Op  Op    // without an object if it is about the batch as a whole
	Err error // a [syscall.Errno], or why the operation can't be written
	// Hint is what the kernel added in words, often nothing.
	Hint string
}

// String returns as "add element 7:22 to map accept_2: no such file or directory".
func (f Failure) String() string {
	text := "commit"
	switch {
	case f.Op.Object == nil:
	case f.Op.Verb != VerbAdd:
		text = f.Op.Verb.String() + " " + strings.Replace(describe(f.Op.Object), " to ", " of ", 1)
	default:
		text = f.Op.Verb.String() + " " + describe(f.Op.Object)
	}
	text += ": " + f.Err.Error()
	if f.Hint != "" {
		text += " (" + f.Hint + ")"
	}
	return text
}

// Error returns the first failures.
func (e *CommitError) Error() string {
	const most = 3
	var texts []string
	for i, f := range e.Failures {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(e.Failures)-most))
			break
		}
		texts = append(texts, f.String())
	}
	return "nft: " + strings.Join(texts, "; ")
}

// Unwrap returns the failures' errors, for errors.Is.
func (e *CommitError) Unwrap() []error {
	errs := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		errs[i] = f.Err
	}
	return errs
}

// part is a message of a batch: what operation it is of, and for elements, which.
type part struct {
	op          int
	first, last int // elements
	at          int // where the message begins
}

// Attributes and messages of nfnetlink (include/uapi/linux/netfilter/nfnetlink.h).
const (
	batchBegin = unix.NFNL_MSG_BATCH_BEGIN
	batchEnd   = unix.NFNL_MSG_BATCH_END
	batchGenID = 1 // NFNL_BATCH_GENID
)

// Commit makes the kernel do all of a batch, or nothing. An empty batch is done
// without asking the kernel.
//
// The error is [ErrChanged] through errors.Is if b.Generation is not the
// kernel's, a [*CommitError] if the kernel or the encoding refused operations,
// and [ErrUnknown] if the outcome is not known.
func (c *Conn) Commit(b Batch) error {
	if b.Empty() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.shrink()
	if err := c.encode(&b); err != nil {
		return err
	}
	// With answers to so many messages one may get lost; then the generation tells.
	before := Generation{}
	if len(c.parts) > 1024 {
		batch, first := c.out.b, c.seq
		c.out.b = nil
		var err error
		before, err = c.generation()
		c.out.b, c.seq = batch, first
		if err != nil {
			return err
		}
	}
	if err := c.sock.send(c.out.b); err != nil {
		return fmt.Errorf("nft: commit: %w", err)
	}
	return c.answers(&b, before)
}

// keptBuffer is how large a send buffer may be kept for the next message.
const keptBuffer = 1 << 20

// shrink lets go of the memory of a large batch.
func (c *Conn) shrink() {
	if cap(c.out.b) > keptBuffer {
		c.out.b, c.parts = nil, nil
	}
}

// Adopt makes this socket the owner of a table that persists and has none,
// or whose owner it is already. From then on nobody else may write to it, until
// the socket is closed. The error is EPERM through errors.Is if the table has
// another owner, and os.ErrNotExist if there is no such table. It needs a kernel
// that knows the flags owner and persist (6.9).
func (c *Conn) Adopt(table string) error {
	t, err := c.Header(table)
	if err != nil {
		return fmt.Errorf("nft: adopt table %s: %w", table, err)
	}
	var b Batch
	b.Add(table, &Table{Name: table, Flags: t.Flags | TableOwner | TablePersist})
	return c.Commit(b)
}

// Header reads a table without its contents. The error is [os.ErrNotExist]
// through errors.Is if there is none.
func (c *Conn) Header(table string) (Table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header(table)
}

// Apply commits the batches of a transaction in order, and stops at the first
// error. The table is whole then, and to packets it is the old or the new one;
// read it back and make another [Diff] to go on.
func (c *Conn) Apply(t Transaction) error {
	for _, b := range t.Batches() {
		if err := c.Commit(b); err != nil {
			return err
		}
	}
	return nil
}

// encode writes the batch to the send buffer. Its first message has the sequence
// number c.seq+1, the messages of c.parts those that follow.
func (c *Conn) encode(b *Batch) error {
	w := &c.out
	const guess = 512 // bytes of a rule
	w.b, w.small = slices.Grow(w.b[:0], len(b.Ops)*guess), false
	c.parts = slices.Grow(c.parts[:0], len(b.Ops))
	at := w.message(batchBegin, 0, c.seq+1, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	if b.Generation != 0 {
		w.u32(batchGenID, b.Generation)
	}
	w.end(at)
	var failed CommitError
	for i := range b.Ops {
		if err := c.encodeOp(&b.Ops[i], i); err != nil {
			failed.Failures = append(failed.Failures, Failure{Op: b.Ops[i], Err: err})
		}
	}
	if failed.Failures != nil {
		return &failed
	}
	// The answer to the last message is that to the batch; without one of them the
	// kernel would not say anything about a success.
	if len(c.parts) > 0 {
		last := w.b[c.parts[len(c.parts)-1].at+6:]
		binary.NativeEndian.PutUint16(last, binary.NativeEndian.Uint16(last)|unix.NLM_F_ACK)
	}
	at = w.message(batchEnd, 0, c.seq+uint32(len(c.parts))+2, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	w.end(at)
	return nil
}

// begin starts a message of the batch.
func (c *Conn) begin(msg, flags uint16, op int) int {
	at := c.out.message(nftType(msg), flags, c.seq+uint32(len(c.parts))+2, nfprotoInet, 0)
	c.parts = append(c.parts, part{op: op, at: at})
	return at
}

// maxElements is how long a list of elements may become before another message
// is begun: an attribute has less than 64 KiB, an element less than one.
const maxElements = 60 << 10

func (c *Conn) encodeOp(op *Op, i int) error {
	w := &c.out
	w.small = false
	if err := checkName(op.Table); err != nil {
		return err
	}
	adding := op.Verb == VerbAdd
	create, err := uint16(0), error(nil)
	if adding {
		create = unix.NLM_F_CREATE
	}
	var at int
	switch o := op.Object.(type) {
	case *Table:
		switch op.Verb {
		case VerbAdd:
			at = c.begin(unix.NFT_MSG_NEWTABLE, create, i)
			err = w.table(o)
		case VerbDelete:
			at = c.begin(unix.NFT_MSG_DELTABLE, 0, i)
			w.str(unix.NFTA_TABLE_NAME, op.Table)
		default:
			return errVerb(op.Verb)
		}
	case *Chain:
		switch op.Verb {
		case VerbAdd:
			at = c.begin(unix.NFT_MSG_NEWCHAIN, create, i)
			err = w.chain(op.Table, o)
		case VerbDelete:
			at = c.begin(unix.NFT_MSG_DELCHAIN, 0, i)
			w.str(unix.NFTA_CHAIN_TABLE, op.Table)
			w.str(unix.NFTA_CHAIN_NAME, o.Name)
		case VerbFlush:
			at = c.begin(unix.NFT_MSG_DELRULE, 0, i)
			w.str(unix.NFTA_RULE_TABLE, op.Table)
			w.str(unix.NFTA_RULE_CHAIN, o.Name)
		default:
			return errVerb(op.Verb)
		}
	case *Set:
		switch op.Verb {
		case VerbAdd:
			at = c.begin(unix.NFT_MSG_NEWSET, create, i)
			err = w.set(op.Table, o, uint32(len(c.parts)))
		case VerbDelete:
			at = c.begin(unix.NFT_MSG_DELSET, 0, i)
			w.str(unix.NFTA_SET_TABLE, op.Table)
			w.str(unix.NFTA_SET_NAME, o.Name)
		case VerbFlush:
			at = c.begin(unix.NFT_MSG_DELSETELEM, 0, i)
			w.str(unix.NFTA_SET_ELEM_LIST_TABLE, op.Table)
			w.str(unix.NFTA_SET_ELEM_LIST_SET, o.Name)
		default:
			return errVerb(op.Verb)
		}
	case RuleIn:
		if !adding {
			return errVerb(op.Verb)
		}
		at = c.begin(unix.NFT_MSG_NEWRULE, create|unix.NLM_F_APPEND, i)
		c.scratch, err = w.rule(op.Table, &o, c.scratch)
	case ElementsIn:
		if op.Verb == VerbFlush {
			return errVerb(op.Verb)
		}
		return c.encodeElements(op, &o, create, i)
	default:
		return errors.New("operation without an object")
	}
	w.end(at)
	return tooLong(err, w)
}

func errVerb(v Verb) error { return fmt.Errorf("nothing to %s", v) }

// tooLong returns the error of a message that can't be as long as it is.
func tooLong(err error, w *wire) error {
	if err == nil && w.small {
		return errors.New("too long for a netlink message")
	}
	return err
}

// encodeElements writes elements, in as many messages as they need.
func (c *Conn) encodeElements(op *Op, o *ElementsIn, create uint16, i int) error {
	w := &c.out
	if err := checkName(o.Set); err != nil {
		return err
	}
	msg := uint16(unix.NFT_MSG_NEWSETELEM)
	if op.Verb == VerbDelete {
		msg = unix.NFT_MSG_DELSETELEM
	}
	for next := 0; next < len(o.Elements); {
		at := c.begin(msg, create, i)
		p := &c.parts[len(c.parts)-1]
		p.first = next
		w.str(unix.NFTA_SET_ELEM_LIST_TABLE, op.Table)
		w.str(unix.NFTA_SET_ELEM_LIST_SET, o.Set)
		list := w.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for ; next < len(o.Elements) && len(w.b)-list < maxElements; next++ {
			write := w.element
			if o.Interval {
				write = w.interval
			}
			if err := write(&o.Elements[next], op.Verb); err != nil {
				return fmt.Errorf("element %s: %w", o.Elements[next].keyText(), err)
			}
		}
		w.unnest(list)
		w.end(at)
		p.last = next
	}
	return tooLong(nil, w)
}

// answers reads what the kernel says to the batch that was sent. All of it is
// there: it was written while the batch was being sent.
func (c *Conn) answers(b *Batch, before Generation) error {
	begin := c.seq + 1
	end := begin + uint32(len(c.parts))
	c.seq = end + 1
	var failed CommitError
	acked, changed := false, false
	for !acked { // the answer to the last message comes after all failures
		err := c.sock.receive(func(m *message) error {
			if m.typ != unix.NLMSG_ERROR || m.seq-begin > end-begin {
				return nil // of an earlier request
			}
			err := m.errno()
			switch {
			case m.seq == begin && err == unix.ERESTART:
				changed = true
			case err != nil:
				failed.Failures = append(failed.Failures, c.failure(b, m, begin, err))
			case m.seq == end:
				acked = true
			}
			return nil
		})
		if errors.Is(err, errNoAnswer) {
			break
		}
		if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EMSGSIZE) {
			continue // answers were lost, no more than that
		}
		if err != nil {
			return err
		}
	}
	switch {
	case changed:
		return ErrChanged
	case failed.Failures != nil:
		return &failed
	case acked:
		return nil
	}
	after, err := c.generation()
	switch {
	case err != nil:
		return err
	case before.ID != 0 && after.ID == before.ID+1:
		return nil
	case before.ID != 0 && after.ID == before.ID:
		return &CommitError{Failures: []Failure{{Err: unix.ENOBUFS}}}
	}
	return ErrUnknown
}

// failure makes a failure of an answer.
func (c *Conn) failure(b *Batch, m *message, begin uint32, err error) Failure {
	f := Failure{Err: err}
	hint, offset := extendedAck(m)
	f.Hint = hint
	i := int(m.seq-begin) - 1
	if i < 0 || i >= len(c.parts) {
		return f
	}
	p := c.parts[i]
	f.Op = b.Ops[p.op]
	if o, ok := f.Op.Object.(ElementsIn); ok {
		o.Elements = o.Elements[p.first:p.last]
		if n := o.written(elementAt(c.out.b[p.at:], offset)); n >= 0 && n < len(o.Elements) {
			o.Elements = o.Elements[n : n+1]
		}
		f.Op.Object = o
	}
	return f
}

// extendedAck returns what an error message says besides the error: words, and
// where in the message that was sent the trouble is (enum nlmsgerr_attrs).
func extendedAck(m *message) (hint string, offset int) {
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || len(m.data) < 4+unix.NLMSG_HDRLEN {
		return "", 0
	}
	skip := 4 + unix.NLMSG_HDRLEN
	if m.flags&unix.NLM_F_CAPPED == 0 { // the whole message that was sent is there
		skip = 4 + int(binary.NativeEndian.Uint32(m.data[4:])+3)&^3
	}
	if skip > len(m.data) {
		return "", 0
	}
	a := attrs{rest: m.data[skip:]}
	for a.next() {
		switch a.typ {
		case unix.NLMSGERR_ATTR_MSG:
			hint = a.str()
		case unix.NLMSGERR_ATTR_OFFS:
			if len(a.data) >= 4 {
				offset = int(binary.NativeEndian.Uint32(a.data))
			}
		}
	}
	return hint, offset
}

// elementAt returns which element of a message of elements an offset is in, -1
// if in none.
func elementAt(msg []byte, offset int) int {
	if len(msg) < unix.NLMSG_HDRLEN+nfgenSize || offset <= 0 {
		return -1
	}
	size := int(binary.NativeEndian.Uint32(msg))
	if size > len(msg) || size < unix.NLMSG_HDRLEN+nfgenSize {
		return -1
	}
	a := attrs{rest: msg[unix.NLMSG_HDRLEN+nfgenSize : size]}
	for a.next() {
		if a.typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list := a.nested()
		end := size - len(a.rest)
		for n := 0; list.next(); n++ {
			elemEnd := end - len(list.rest)
			if offset < elemEnd {
				if offset < end-len(a.data)-4 {
					return -1
				}
				return n
			}
		}
	}
	return -1
}

// written returns which element the n-th one on the wire is of: an interval is
// two there if it has an end.
func (o *ElementsIn) written(n int) int {
	if !o.Interval {
		return n
	}
	for i := range o.Elements {
		if n--; n < 0 {
			return i
		}
		if _, end := behind(o.Elements[i].Key[1]); end {
			if n--; n < 0 {
				return i
			}
		}
	}
	return -1
}
