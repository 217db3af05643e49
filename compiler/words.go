package compiler

import (
	"fmt"
	"hash/fnv"
	"path"
	"strconv"
	"strings"

	"github.com/sockns/sockns/model"
)

// commentMax is the longest comment that nft(8) reads
// (NFTNL_UDATA_COMMENT_MAXLEN less the NUL).
const commentMax = 127

// What the parts of a rule's comment may take of it: the words are cut alike
// wherever the rule is written, so that they stay its name.
const (
	wordsMax = 80
	fileMax  = 20
)

// ruleComment is what a reader of nft list ruleset sees of a rule: the policy's
// own words, and where they are written.
func ruleComment(r *model.Rule) string {
	where := " [" + fit(path.Base(r.Pos.File), fileMax) + ":" + strconv.Itoa(r.Pos.Line) + "]"
	return fit(r.Hook.String()+" "+strconv.Itoa(r.Index)+": "+RuleName(r), commentMax-len(where)) + where
}

// RuleName returns the words by which counters know a rule: it keeps them when
// others come and go around it.
func RuleName(r *model.Rule) string { return fit(r.Words(), wordsMax) }

// DefaultName is that of what decides where no rule does.
const DefaultName = "default"

// RuleTag returns the number that stands for a rule's name in the counts of the
// syscall tier; that of a default is 0.
func RuleTag(r *model.Rule) uint32 { return tagOf(RuleName(r)) }

func tagOf(name string) uint32 {
	if name == DefaultName {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	return max(h.Sum32(), 1)
}

func defaultComment(n *model.SocketNamespace, h model.Hook) string {
	if h == model.Bind {
		if bindDefaultDenies(n) {
			return "bind default: nothing else, and own addresses only"
		}
		return "bind default: own addresses only"
	}
	errno, denies := defaultOf(n, h)
	if !denies {
		return fmt.Sprintf("%s default: allow", h)
	}
	return fmt.Sprintf("%s default: deny %s", h, errno)
}

// wordsOf returns the words of a rule's comment without the place.
func wordsOf(comment string) string {
	if i := strings.LastIndex(comment, " ["); i >= 0 && strings.HasSuffix(comment, "]") {
		return comment[:i]
	}
	return comment
}

func unreadable(r rune) bool { return r == '"' || r < ' ' }

// fit shortens text to a length, ending in a digest of what was cut, so that
// different texts stay different. What nft(8) can't read is replaced.
func fit(text string, length int) string {
	if strings.ContainsFunc(text, unreadable) {
		text = strings.Map(func(r rune) rune {
			if unreadable(r) {
				return '_'
			}
			return r
		}, text)
	}
	if len(text) <= length {
		return text
	}
	mark := "... #" + digest(text)
	return text[:max(0, length-len(mark))] + mark
}
