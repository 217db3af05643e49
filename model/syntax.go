package model

import (
	"bytes"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// remedies say what to do about what the YAML parser says.
var remedies = map[string]string{
	"found character that cannot start any token":            "put the value in quotes",
	"did not find expected key":                              "its indentation does not fit the lines above, or a list or mapping above is not closed",
	"mapping values are not allowed in this context":         "a colon too many, or none at the end of a line above; put a value with a colon in quotes",
	"did not find expected ',' or ']'":                       "put a comma before it, or close the list with ]",
	"did not find expected ',' or '}'":                       "put a comma before it, or close the mapping with }",
	"did not find expected node content":                     "a value has to stand here; put IPv6 addresses in quotes",
	"did not find expected '-' indicator":                    "its indentation does not fit the list above",
	"block sequence entries are not allowed in this context": "a list begins on a line of its own, below its key",
	"could not find expected ':'":                            "a colon is missing here or on the line above",
	"found unexpected end of stream":                         "a quotation mark is not closed",
	"found unexpected document indicator":                    "a quotation mark above is not closed",
	"did not find expected <document start>":                 "begin the next document with ---",
	"found undefined tag handle":                             "put the value in quotes",
}

var yamlLine = regexp.MustCompile(`line \d+: `)

// syntax reports an error of the YAML parser.
func (r *reader) syntax(f File, d *yaml.Decoder, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindString(text); m != "" {
		text = strings.Replace(text, m, "", 1)
	}
	line, column := parserMark(d)
	if name, unknown := strings.CutPrefix(text, "unknown anchor "); unknown {
		line, column = eventMark(d)
		r.errorf(Position{r.name, line, column}, "not YAML: unknown anchor %s: write &%[1]s before the value that it stands for, and that above this", strings.Trim(strings.TrimSuffix(name, " referenced"), "'"))
		return
	}
	remedy := remedies[text]
	if tab := tabOfIndentation(f.Data, line); tab > 0 {
		column, text, remedy = tab, "a tab in the indentation", "YAML indents with spaces"
	}
	if remedy != "" {
		text += ": " + remedy
	}
	r.errorf(Position{r.name, line, column}, "not YAML: %s", text)
}

// parserMark returns where the YAML parser met what it could not read. Its
// error tells a line only, that of the construct around it (and often the line
// before): the mark itself is not exported.
func parserMark(d *yaml.Decoder) (line, column int) {
	p := inner(reflect.ValueOf(d), "parser", "parser")
	return markOf(inner(p, "problem_mark"))
}

// eventMark returns where what the parser read last begins.
func eventMark(d *yaml.Decoder) (line, column int) {
	return markOf(inner(reflect.ValueOf(d), "parser", "event", "start_mark"))
}

func inner(v reflect.Value, path ...string) reflect.Value {
	for _, name := range path {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		v = v.FieldByName(name)
	}
	return v
}

func markOf(mark reflect.Value) (line, column int) {
	l, c := inner(mark, "line"), inner(mark, "column")
	if !l.IsValid() || !c.IsValid() {
		return 1, 1
	}
	return int(l.Int()) + 1, int(c.Int()) + 1
}

// tabOfIndentation returns the column of the first tab in a line's
// indentation, 0 if it has none.
func tabOfIndentation(data []byte, line int) int {
	for ; line > 1; line-- {
		_, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			return 0
		}
		data = rest
	}
	for i, b := range data {
		switch b {
		case '\t':
			return i + 1
		case ' ':
		default:
			return 0
		}
	}
	return 0
}

// readable reports the first byte that no policy file can have: the YAML
// parser does not say where it is.
func (r *reader) readable(f File) bool {
	bad := func(at int, format string, args ...any) bool {
		line := bytes.LastIndexByte(f.Data[:at], '\n') + 1
		pos := Position{f.Name, 1 + bytes.Count(f.Data[:at], []byte("\n")), 1 + utf8.RuneCount(f.Data[line:at])}
		r.errorf(pos, format, args...)
		return false
	}
	for at := 0; at < len(f.Data); {
		c := f.Data[at]
		switch {
		case c >= utf8.RuneSelf:
			_, size := utf8.DecodeRune(f.Data[at:])
			if size == 1 {
				return bad(at, "byte 0x%02x is not UTF-8: save the file as UTF-8", c)
			}
			at += size
			continue
		case c < ' ' && c != '\t' && c != '\n' && c != '\r', c == 0x7f:
			return bad(at, "control character 0x%02x: remove it", c)
		}
		at++
	}
	return true
}
