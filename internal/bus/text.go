package bus

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse reads a value in GLib's text form of GVariant, as annotations
// org.systemd.property.* have it: 'text', true, uint64 5, ['a', 'b'],
// @a(ss) [('/dev/null', 'rw')]. A number without a type is an int32, or a
// double. Errors say what is wrong. Source: GLib, "GVariant Text Format".
func Parse(text string) (Value, error) {
	const most = 64 << 10
	if len(text) > most {
		return Value{}, errors.New("it is too long")
	}
	p := &parser{rest: text}
	l, err := p.literal(0)
	if err != nil {
		return Value{}, err
	}
	if p.space(); p.rest != "" {
		return Value{}, fmt.Errorf("unexpected %q", shorten(p.rest))
	}
	kind, err := l.infer()
	if err != nil {
		return Value{}, err
	}
	return l.as(kind)
}

func shorten(s string) string {
	const most = 20
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// A literal is a value as written: its type may follow from its neighbours.
type literal struct {
	kind byte   // '1' number, 's' text, 'b' truth value, 'y' bytes, and a v ( { as of types
	typ  string // as written before it
	text string
	list []literal // of an entry, '{', two; of a dictionary, 'a', entries
}

// names are the words for types.
var names = []struct{ word, kind string }{
	{"boolean", "b"}, {"byte", "y"}, {"int16", "n"}, {"uint16", "q"}, {"int32", "i"}, {"uint32", "u"}, {"int64", "x"}, {"uint64", "t"}, {"double", "d"},
	{"string", "s"}, {"objectpath", "o"}, {"signature", "g"},
}

type parser struct{ rest string }

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// skip takes a sign where it is next.
func (p *parser) skip(sign byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != sign {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// word takes what stands before a sign or a space.
func (p *parser) word() string {
	n := strings.IndexAny(p.rest, " \t\r\n,:[](){}<>'\"")
	if n < 0 {
		n = len(p.rest)
	}
	w := p.rest[:n]
	p.rest = p.rest[n:]
	return w
}

func (p *parser) literal(depth int) (literal, error) {
	p.space()
	switch {
	case depth > mostDepth/2:
		return literal{}, errors.New("it is nested too deep")
	case p.rest == "":
		return literal{}, errors.New("unexpected end")
	}
	c := p.rest[0]
	switch {
	case c == '@':
		return p.annotated(depth)
	case c == '\'' || c == '"':
		s, err := p.quoted(true)
		return literal{kind: 's', text: s}, err
	case strings.HasPrefix(p.rest, "b'") || strings.HasPrefix(p.rest, `b"`):
		p.rest = p.rest[1:]
		s, err := p.quoted(false)
		return literal{kind: 'y', text: s + "\x00"}, err
	case p.skip('['):
		list, err := p.list(']', depth)
		return literal{kind: 'a', list: list}, err
	case p.skip('('):
		list, err := p.list(')', depth)
		return literal{kind: '(', list: list}, err
	case p.skip('{'):
		return p.entries(depth)
	case p.skip('<'):
		l, err := p.literal(depth + 1)
		if err == nil && !p.skip('>') {
			err = errors.New("a variant does not end")
		}
		return literal{kind: 'v', list: []literal{l}}, err
	case c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.':
		return literal{kind: '1', text: p.word()}, nil
	}
	word := p.word()
	if word == "true" || word == "false" {
		return literal{kind: 'b', text: word}, nil
	}
	for _, n := range names {
		if n.word == word {
			return p.typed(n.kind, depth)
		}
	}
	return literal{}, fmt.Errorf("unexpected %q", shorten(word+p.rest))
}

// annotated takes a type behind @, which may contain signs, and its value.
func (p *parser) annotated(depth int) (literal, error) {
	p.rest = p.rest[1:]
	n, err := typeLength(p.rest, 0)
	if err != nil {
		return literal{}, err
	}
	kind := p.rest[:n]
	p.rest = p.rest[n:]
	return p.typed(kind, depth)
}

func (p *parser) typed(kind string, depth int) (literal, error) {
	l, err := p.literal(depth + 1)
	if err == nil && l.typ != "" {
		err = errors.New("two types of one value")
	}
	l.typ = kind
	return l, err
}

func (p *parser) list(end byte, depth int) ([]literal, error) {
	list := []literal{}
	for !p.skip(end) {
		if len(list) > 0 && !p.skip(',') {
			return nil, fmt.Errorf("a list does not end with %c", end)
		}
		if p.skip(end) {
			break // ('a',) is a struct of one
		}
		l, err := p.literal(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func (p *parser) entries(depth int) (literal, error) {
	dictionary := literal{kind: 'a', list: []literal{}}
	for !p.skip('}') {
		if len(dictionary.list) > 0 && !p.skip(',') {
			return literal{}, errors.New("a dictionary does not end")
		}
		key, err := p.literal(depth + 1)
		if err != nil {
			return literal{}, err
		}
		if !p.skip(':') {
			return literal{}, errors.New("a dictionary's key has no value")
		}
		value, err := p.literal(depth + 1)
		if err != nil {
			return literal{}, err
		}
		dictionary.list = append(dictionary.list, literal{kind: '{', list: []literal{key, value}})
	}
	if len(dictionary.list) == 0 {
		dictionary.kind = '{' // @a{ss} {}
	}
	return dictionary, nil
}

// escapes are those of one letter.
var escapes = [256]byte{'a': 7, 'b': 8, 'f': 12, 'n': '\n', 'r': '\r', 't': '\t', 'v': 11}

// quoted takes a text in either quotes; unicode: its escapes are of characters,
// else of bytes in octal.
func (p *parser) quoted(unicode bool) (string, error) {
	quote := p.rest[0]
	s := p.rest[1:]
	var out []byte
	for {
		switch {
		case s == "":
			return "", errors.New("a text does not end")
		case s[0] == quote:
			p.rest = s[1:]
			if unicode && !utf8.Valid(out) {
				return "", errors.New("a text is not UTF-8")
			}
			return string(out), nil
		case s[0] != '\\':
			out, s = append(out, s[0]), s[1:]
			continue
		case len(s) < 2:
			return "", errors.New("a text does not end")
		}
		digits, base := 0, 16
		switch c := s[1]; {
		case unicode && c == 'u':
			digits, s = 4, s[2:]
		case unicode && c == 'U':
			digits, s = 8, s[2:]
		case !unicode && c >= '0' && c <= '7':
			digits, base, s = 3, 8, s[1:]
		case escapes[c] != 0:
			out, s = append(out, escapes[c]), s[2:]
		default:
			out, s = append(out, c), s[2:]
		}
		if digits == 0 {
			continue
		}
		if len(s) < digits {
			return "", errors.New("an escape is too short")
		}
		n, err := strconv.ParseUint(s[:digits], base, 32)
		if err != nil || !unicode && n > 255 {
			return "", errors.New("an escape is no number")
		}
		if s = s[digits:]; unicode {
			out = utf8.AppendRune(out, rune(n))
		} else {
			out = append(out, byte(n))
		}
	}
}

var errUntyped = errors.New("an empty list needs a type, such as @as []")

// infer is the type of the literal where none is asked for.
func (l literal) infer() (string, error) {
	switch {
	case l.typ != "":
		return l.typ, nil
	case l.kind == '1' && strings.ContainsAny(l.text, ".eE") && !strings.HasPrefix(l.text, "0x"):
		return "d", nil
	case l.kind == '1':
		return "i", nil
	case l.kind == 'y':
		return "ay", nil
	case l.kind == '(':
		return l.inferFields("(", ")")
	case l.kind == '{' && len(l.list) == 2:
		return l.inferFields("{", "}")
	case l.kind == 'a' || l.kind == '{':
		return l.inferArray()
	}
	return string(l.kind), nil
}

func (l literal) inferFields(open, end string) (string, error) {
	for _, f := range l.list {
		kind, err := f.infer()
		if err != nil {
			return "", err
		}
		open += kind
	}
	if len(l.list) == 0 {
		return "", errType
	}
	return open + end, nil
}

// inferArray takes the type of an element that is written with one, else of
// the first that has one.
func (l literal) inferArray() (string, error) {
	found := ""
	for _, e := range l.list {
		kind, err := e.infer()
		switch {
		case err != nil:
		case e.written():
			return "a" + kind, nil
		case found == "":
			found = kind
		}
	}
	if found == "" {
		return "", errUntyped
	}
	return "a" + found, nil
}

// written reports whether a type is written in the literal.
func (l literal) written() bool {
	if l.typ != "" {
		return true
	}
	for _, e := range l.list {
		if l.kind != 'v' && e.written() {
			return true
		}
	}
	return false
}

// as is the literal as a value of the type kind.
func (l literal) as(kind string) (Value, error) {
	v := Value{Type: kind}
	wrong := fmt.Errorf("a value is not of the type %q", kind)
	if l.typ != "" && l.typ != kind || kind == "" {
		return v, wrong
	}
	var err error
	switch c := kind[0]; {
	case l.kind == '1' && widths[c] != 0 && c != 'b':
		v.Number, err = number(l.text, c)
	case l.kind == 's' && strings.IndexByte("sog", c) >= 0:
		v.Text = l.text
	case l.kind == 'b' && c == 'b':
		v = Bool(l.text == "true")
	case l.kind == 'y' && kind == "ay":
		v = Bytes([]byte(l.text))
	case l.kind == 'v' && c == 'v':
		var inner string
		if inner, err = l.list[0].infer(); err == nil {
			v.List = make([]Value, 1)
			v.List[0], err = l.list[0].as(inner)
		}
	case (l.kind == 'a' || l.kind == '{' && len(l.list) == 0) && c == 'a':
		for _, e := range l.list {
			var one Value
			if one, err = e.as(kind[1:]); err != nil {
				break
			}
			v.List = append(v.List, one)
		}
	case l.kind == c && (c == '(' || c == '{'):
		v.List, err = l.fields(kind[1 : len(kind)-1])
	default:
		return v, wrong
	}
	return v, err
}

func (l literal) fields(types string) ([]Value, error) {
	var out []Value
	for _, f := range l.list {
		first, rest, err := split(types)
		if err != nil {
			return nil, err
		}
		v, err := f.as(first)
		if err != nil {
			return nil, err
		}
		out, types = append(out, v), rest
	}
	if types != "" {
		return nil, errType
	}
	return out, nil
}

// number reads a number as one of the type kind: 0x is hexadecimal, 0 octal.
func number(text string, kind byte) (uint64, error) {
	bad := fmt.Errorf("%q is no number of the type %q", text, string(kind))
	if kind == 'd' {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, bad
		}
		return math.Float64bits(f), nil
	}
	if strings.ContainsAny(text, "_oObB") && !strings.HasPrefix(strings.TrimLeft(text, "+-"), "0x") {
		return 0, bad
	}
	bits := widths[kind] * 8
	if strings.IndexByte("nix", kind) >= 0 {
		n, err := strconv.ParseInt(text, 0, bits)
		if err != nil {
			return 0, bad
		}
		return uint64(n) << (64 - bits) >> (64 - bits), nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 0, bits)
	if err != nil {
		return 0, bad
	}
	return n, nil
}
