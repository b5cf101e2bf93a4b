package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Value is one of D-Bus's: its type as the specification writes it, and by
// type what it holds.
type Value struct {
	Type   string
	Number uint64  // the bits of y b n q i u x t d as they are sent; those above the type's width are zero
	Text   string  // of s o g
	List   []Value // elements of an array, fields of a struct, key and value of an entry, what a variant holds
}

// String is a text.
func String(s string) Value { return Value{Type: "s", Text: s} }

// Bool is a truth value.
func Bool(b bool) Value {
	v := Value{Type: "b"}
	if b {
		v.Number = 1
	}
	return v
}

// Uint32 and Uint64 are numbers.
func Uint32(n uint32) Value { return Value{Type: "u", Number: uint64(n)} }

// Uint64 is a number.
func Uint64(n uint64) Value { return Value{Type: "t", Number: n} }

// Signed is the number of an n, i or x, which may be below zero.
func (v Value) Signed() int64 {
	unused := 64 - 8*v.width()
	return int64(v.Number<<unused) >> unused
}

// width is the size of what v holds in bytes where that is a number, else 0.
func (v Value) width() int {
	if len(v.Type) != 1 {
		return 0
	}
	return widths[v.Type[0]]
}

// Variant is a value that carries its type.
func Variant(v Value) Value { return Value{Type: "v", List: []Value{v}} }

// Array is an array of values of the type element.
func Array(element string, values ...Value) Value { return Value{Type: "a" + element, List: values} }

// Struct is a struct.
func Struct(fields ...Value) Value {
	v := Value{Type: "(", List: fields}
	for _, f := range fields {
		v.Type += f.Type
	}
	v.Type += ")"
	return v
}

// Bytes is an array of bytes.
func Bytes(b []byte) Value {
	v := Value{Type: "ay"}
	for _, c := range b {
		v.List = append(v.List, Value{Type: "y", Number: uint64(c)})
	}
	return v
}

// mostDepth is how deep types may be nested: the specification has 32 arrays
// and 32 structs.
const mostDepth = 64

// widths are the sizes of types that hold a number.
var widths = [256]int{'y': 1, 'b': 4, 'n': 2, 'q': 2, 'i': 4, 'u': 4, 'x': 8, 't': 8, 'd': 8}

// alignment is where a value of a type may begin.
func alignment(t byte) int {
	switch t {
	case 's', 'o', 'a':
		return 4
	case 'g', 'v':
		return 1
	case '(', '{':
		return 8
	}
	return widths[t]
}

// split takes the first complete type from a signature.
func split(signature string) (first, rest string, err error) {
	n, err := typeLength(signature, 0)
	if err != nil {
		return "", "", err
	}
	return signature[:n], signature[n:], nil
}

var errType = errors.New("it is no type of D-Bus")

func typeLength(s string, depth int) (int, error) {
	if s == "" || depth > mostDepth {
		return 0, errType
	}
	switch c := s[0]; c {
	case 'a':
		n, err := typeLength(s[1:], depth+1)
		return n + 1, err
	case '(', '{':
		return bracketLength(s, depth)
	case 's', 'o', 'g', 'v':
		return 1, nil
	default:
		if widths[c] == 0 {
			return 0, errType
		}
		return 1, nil
	}
}

// bracketLength is the length of a struct, of one field or more, or of an entry
// of a dictionary, of a basic type and another.
func bracketLength(s string, depth int) (int, error) {
	closing, at, fields := byte(')'), 1, 0
	if s[0] == '{' {
		closing = '}'
	}
	for at < len(s) && s[at] != closing {
		n, err := typeLength(s[at:], depth+1)
		if err != nil {
			return 0, err
		}
		at, fields = at+n, fields+1
	}
	basic := at > 1 && (widths[s[1]] != 0 || strings.IndexByte("sog", s[1]) >= 0)
	if at >= len(s) || fields == 0 || s[0] == '{' && (fields != 2 || !basic) {
		return 0, errType
	}
	return at + 1, nil
}

// An encoder writes values, little-endian.
type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u32(n uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, n) }

func (e *encoder) value(v Value) error {
	first, rest, err := split(v.Type)
	if err != nil || rest != "" {
		return fmt.Errorf("%q: %w", v.Type, errType)
	}
	e.align(alignment(first[0]))
	switch c := first[0]; c {
	case 's', 'o', 'g':
		return e.text(c, v.Text)
	case 'v':
		if len(v.List) != 1 {
			return fmt.Errorf("a variant of %d values", len(v.List))
		}
		if err := e.text('g', v.List[0].Type); err != nil {
			return err
		}
		return e.value(v.List[0])
	case 'a':
		return e.array(first[1:], v.List)
	case '(', '{':
		return e.fields(first[1:len(first)-1], v.List)
	default:
		n := v.Number
		for range widths[c] {
			e.b = append(e.b, byte(n))
			n >>= 8
		}
		return nil
	}
}

func (e *encoder) text(kind byte, s string) error {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return errors.New("a text of D-Bus is UTF-8 without NUL")
	}
	if kind == 'o' && !isPath(s) {
		return fmt.Errorf("%q is no path of an object", s)
	}
	if kind == 'g' {
		for rest := s; rest != ""; {
			var err error
			if _, rest, err = split(rest); err != nil || len(s) > 255 {
				return errType
			}
		}
		e.b = append(e.b, byte(len(s)))
	} else {
		e.u32(uint32(len(s)))
	}
	e.b = append(append(e.b, s...), 0)
	return nil
}

// isPath reports whether s is an object path: a peer ends the connection where
// one is not.
func isPath(s string) bool {
	if s == "/" {
		return true
	}
	rest, ok := strings.CutPrefix(s, "/")
	for part := range strings.SplitSeq(rest, "/") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return false
		}
	}
	return ok
}

func (e *encoder) array(element string, list []Value) error {
	length := len(e.b)
	e.u32(0)
	e.align(alignment(element[0]))
	start := len(e.b)
	for _, v := range list {
		if v.Type != element {
			return fmt.Errorf("an array of %q holds a %q", element, v.Type)
		}
		if err := e.value(v); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint32(e.b[length:], uint32(len(e.b)-start))
	return nil
}

func (e *encoder) fields(types string, list []Value) error {
	for _, v := range list {
		first, rest, err := split(types)
		if err != nil || v.Type != first {
			return fmt.Errorf("a field of %q is a %q", types, v.Type)
		}
		if err := e.value(v); err != nil {
			return err
		}
		types = rest
	}
	if types != "" {
		return fmt.Errorf("fields %q are missing", types)
	}
	return nil
}

// A decoder reads values. Its alignment counts from the beginning of b.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
}

func (d *decoder) align(n int) error {
	at := (d.at + n - 1) / n * n
	if at > len(d.b) {
		return errForm
	}
	d.at = at
	return nil
}

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.b)-d.at {
		return nil, errForm
	}
	b := d.b[d.at : d.at+n]
	d.at += n
	return b, nil
}

func (d *decoder) number(width int) (uint64, error) {
	b, err := d.take(width)
	if err != nil {
		return 0, err
	}
	switch width {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(d.order.Uint16(b)), nil
	case 4:
		return uint64(d.order.Uint32(b)), nil
	}
	return d.order.Uint64(b), nil
}

// values reads one value for each type of signature.
func (d *decoder) values(signature string, depth int) ([]Value, error) {
	var out []Value
	for signature != "" {
		first, rest, err := split(signature)
		if err != nil {
			return nil, err
		}
		v, err := d.value(first, depth)
		if err != nil {
			return nil, err
		}
		out, signature = append(out, v), rest
	}
	return out, nil
}

func (d *decoder) value(kind string, depth int) (Value, error) {
	v := Value{Type: kind}
	if depth > mostDepth {
		return v, errForm
	}
	err := d.align(alignment(kind[0]))
	if err != nil {
		return v, err
	}
	switch c := kind[0]; c {
	case 's', 'o':
		v.Text, err = d.text(4)
	case 'g':
		v.Text, err = d.text(1)
	case 'v':
		v.List, err = d.variant(depth)
	case 'a':
		v.List, err = d.array(kind[1:], depth)
	case '(', '{':
		v.List, err = d.values(kind[1:len(kind)-1], depth+1)
	default:
		v.Number, err = d.number(widths[c])
	}
	return v, err
}

func (d *decoder) text(width int) (string, error) {
	n, err := d.number(width)
	if err != nil || n > mostMessage {
		return "", errForm
	}
	b, err := d.take(int(n) + 1)
	if err != nil || b[n] != 0 {
		return "", errForm
	}
	return string(b[:n]), nil
}

func (d *decoder) variant(depth int) ([]Value, error) {
	kind, err := d.text(1)
	if err != nil {
		return nil, err
	}
	if _, rest, err := split(kind); err != nil || rest != "" {
		return nil, errType
	}
	v, err := d.value(kind, depth+1)
	return []Value{v}, err
}

func (d *decoder) array(element string, depth int) ([]Value, error) {
	n, err := d.number(4)
	if err != nil || n > mostMessage {
		return nil, errForm
	}
	if err := d.align(alignment(element[0])); err != nil {
		return nil, err
	}
	end := d.at + int(n)
	if end > len(d.b) {
		return nil, errForm
	}
	list := []Value{}
	for d.at < end {
		v, err := d.value(element, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if d.at != end {
		return nil, errForm
	}
	return list, nil
}
