package quadlet

import (
	"strconv"
	"strings"
)

// Words splits a value as systemd does: at blanks, but for those in quotes, and
// with C's escapes. See systemd.service(5), "Command lines".
func Words(e Entry) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, begun := byte(0), false
	s := e.Value
	if strings.ContainsRune(s, 0) {
		return nil, e.errorf("it has a zero byte")
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			text, n, err := unescape(s[i+1:])
			if err != "" {
				return nil, e.errorf("%s in %q", err, s)
			}
			word.WriteString(text)
			i, begun = i+n, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, e.errorf("a quote is not closed in %q", s)
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// escapes are C's of one letter, and systemd's \s.
var escapes = map[byte]string{'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\\': `\`, '"': `"`, '\'': "'", 's': " "}

// digits are the escapes with a number: its base and how many digits it has.
var digits = map[byte]struct{ base, count int }{'x': {16, 2}, 'u': {16, 4}, 'U': {16, 8}}

// unescape reads what follows a backslash, and how many bytes that were.
func unescape(s string) (text string, n int, bad string) {
	if s == "" {
		return "", 0, "nothing follows a backslash"
	}
	if text, ok := escapes[s[0]]; ok {
		return text, 1, ""
	}
	d, ok := digits[s[0]]
	first := 1
	if !ok && s[0] >= '0' && s[0] <= '7' {
		d.base, d.count, first, ok = 8, 3, 0, true
	}
	if !ok {
		return `\` + s[:1], 1, "" // as systemd leaves it
	}
	if len(s) < first+d.count {
		return "", 0, "an escape is too short"
	}
	v, err := strconv.ParseUint(s[first:first+d.count], d.base, 32)
	if err != nil || v == 0 || d.count <= 3 && v > 255 || v > 0x10ffff {
		return "", 0, "an escape is no number"
	}
	if d.count <= 3 {
		return string([]byte{byte(v)}), first + d.count, ""
	}
	return string(rune(v)), first + d.count, ""
}

// Quote writes words so that systemd reads them as they are, but for the
// specifiers and variables that are in them ("%h", "$HOME").
func Quote(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quote(w)
	}
	return strings.Join(out, " ")
}

func quote(w string) string {
	if w != "" && !strings.ContainsFunc(w, func(r rune) bool { return !plain(r) }) {
		return w
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(w); i++ {
		switch c := w[i]; {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c < ' ' || c == 0x7f:
			b.WriteString(`\x` + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15]))
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func plain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=./:,@%+$", r)
}

// Literal lets systemd take words as they are, also their "%" and "$".
func Literal(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.ReplaceAll(strings.ReplaceAll(w, "%", "%%"), "$", "$$")
	}
	return out
}
