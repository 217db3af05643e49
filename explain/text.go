package explain

import (
	"fmt"
	"strings"
)

// String tells the explanation in lines, for a person to read.
func (e Explanation) String() string {
	var b strings.Builder
	b.WriteString(e.Verdict() + ": " + e.Flow + "\n")
	for _, a := range e.Assumed {
		fmt.Fprintf(&b, "  assumed: %s\n", a)
	}
	for _, s := range e.Steps {
		s.write(&b)
	}
	if e.Sees != nil {
		b.WriteString("  what the application sees\n")
		if e.Sees.Syscalls == e.Sees.Packets {
			fmt.Fprintf(&b, "    %s\n", e.Sees.Packets)
		} else {
			fmt.Fprintf(&b, "    with the syscall tier: %s\n", e.Sees.Syscalls)
			fmt.Fprintf(&b, "    packets alone: %s\n", e.Sees.Packets)
		}
	}
	if len(e.Fixes) > 0 {
		b.WriteString("  the smallest rules that would allow it\n")
		for _, f := range e.Fixes {
			fmt.Fprintf(&b, "    %s\n", f)
		}
	}
	return b.String()
}

// Verdict returns "allowed", or "refused" with the error.
func (e Explanation) Verdict() string {
	if e.Allowed {
		return "allowed"
	}
	return fmt.Sprintf("refused (%s)", e.Error)
}

func (s Step) write(b *strings.Builder) {
	who := s.Namespace + " " + s.Hook
	if s.Namespace == "" {
		who = "the " + s.End + " end"
	}
	verdict := "allowed"
	switch {
	case s.Error != "" && s.Audit:
		verdict = fmt.Sprintf("counted as refused (%s), allowed by mode: audit", s.Error)
	case s.Error != "":
		verdict = fmt.Sprintf("refused (%s)", s.Error)
	}
	fmt.Fprintf(b, "  %s: %s, %s\n", who, verdict, s.Why)
	if s.Rule != nil {
		fmt.Fprintf(b, "      %s\n", s.Rule.Words)
	}
	for _, p := range s.Passed {
		fmt.Fprintf(b, "    not rule %d at %s: %s\n      %s\n", p.Index, p.Pos, p.Words, p.Why)
	}
}
