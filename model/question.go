package model

import (
	"fmt"
	"net/netip"
	"strings"
)

// Question is a flow or a bind that somebody asks about, with what the words
// left open filled in as the kernel would.
type Question struct {
	// Hook is Bind for a question about From's local address alone, and
	// Connect for one about a flow from end to end.
	Hook Hook
	Flow Flow // of a bind, Protocol and From count
	// Assumed says what the words left open and how it was understood.
	Assumed []string
}

// Decide answers the question. Of the answer to a bind, FromBind counts.
func (q Question) Decide(p *Policy) Decision {
	if q.Hook == Bind {
		return Decision{FromBind: DecideBind(p, q.Flow.From.Namespace, q.Flow.Protocol, q.Flow.From.Address)}
	}
	return Decide(p, q.Flow)
}

// String returns the question in the words that [Policy.ParseQuestion] reads.
func (q Question) String() string {
	f := q.Flow
	if q.Hook == Bind {
		return fmt.Sprintf("%s bind %s", f.From.who(), traffic(f.Protocol, f.From.Address))
	}
	to := ""
	if f.To.Device != "" {
		to = f.To.who() + " "
	}
	s := fmt.Sprintf("%s connect %s%s", f.From.who(), to, traffic(f.Protocol, f.To.Address))
	if f.From.Device != "" && f.From.Address.Addr().IsValid() {
		s += " from " + f.From.Address.Addr().String()
	}
	return s
}

// who names an end as a question does.
func (e End) who() string {
	switch {
	case e.Namespace != "":
		return e.Namespace
	case e.Device == "":
		return e.Address.Addr().String()
	case e.Device != HostDevice:
		return "unmanaged in " + e.Device
	}
	return "unmanaged"
}

func traffic(proto Protocol, at netip.AddrPort) string {
	switch {
	case !at.Addr().IsValid() && !proto.HasPorts():
		return string(proto)
	case !at.Addr().IsValid():
		return fmt.Sprintf("%s/%d", proto, at.Port())
	case !proto.HasPorts():
		return fmt.Sprintf("%s %s", proto, at.Addr())
	}
	return fmt.Sprintf("%s %s", proto, at)
}

// QuestionError is a mistake in the words of a question.
type QuestionError struct {
	Column  int // of the word, from 1
	Message string
}

// Error returns "column N: message".
func (e *QuestionError) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Message) }

// ParseQuestion reads the words of a question:
//
//	web connect db tcp/5432
//	web connect tcp 10.0.0.5:5432
//	user/1000 connect self tcp/8888
//	unmanaged in blue connect udp 127.0.0.1:53
//	unmanaged connect db tcp/5432 from 10.1.2.3
//	203.0.113.9 connect web tcp/443
//	web bind tcp 0.0.0.0:80
//
// It begins with who acts: a socket namespace (of a template, an instance),
// unmanaged (in a device namespace, host unless it is named), or the address
// of another machine. After connect come, in any order, the protocol with or
// without the port, the address with or without the port, and who listens;
// what is left out is filled in. The error is a *[QuestionError].
func (p *Policy) ParseQuestion(text string) (Question, error) {
	r := questionReader{policy: p, words: splitWords(text)}
	q, err := r.question()
	if err != nil {
		return Question{}, err // not a nil pointer in an interface
	}
	return q, nil
}

// word is a word of a question.
type word struct {
	text   string
	column int // from 1
}

func splitWords(text string) []word {
	var words []word
	for at := 0; at < len(text); {
		rest := text[at:]
		trimmed := strings.TrimLeft(rest, " \t\n")
		at += len(rest) - len(trimmed)
		end := strings.IndexAny(trimmed, " \t\n")
		if end < 0 {
			end = len(trimmed)
		}
		if end > 0 {
			words = append(words, word{trimmed[:end], at + 1})
		}
		at += end
	}
	return words
}

// failed returns the error of a word.
func (w word) failed(format string, args ...any) error {
	return &QuestionError{w.column, fmt.Sprintf(format, args...)}
}
