package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A field of a message, as "repeated string cmd = 2;" tells it.
type field struct {
	name     string
	kind     string // string, bytes, bool, int32, int64, uint32, uint64, or a message's name
	number   uint64
	repeated bool
}

// A schema has the fields of messages by the messages' names.
type schema map[string][]field

// The ways of protobuf to write a value.
const (
	varint = 0
	fixed8 = 1
	sized  = 2
	fixed4 = 5
)

var errCut = errors.New("a message that is cut off")

// parseSchema reads the part of protobuf's language that api.proto uses: one
// message or field a line.
func parseSchema(text string) (schema, error) {
	s := schema{}
	var name string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		words := strings.Fields(strings.Trim(strings.TrimSpace(line), ";}"))
		switch {
		case len(words) == 0 || words[0] == "syntax" || words[0] == "package":
		case words[0] == "message" && len(words) > 1:
			name = words[1]
			s[name] = nil
		default:
			f, err := parseField(words)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			s[name] = append(s[name], f)
		}
	}
	return s, nil
}

func parseField(words []string) (f field, err error) {
	if words[0] == "repeated" {
		f.repeated, words = true, words[1:]
	}
	if len(words) != 4 || words[2] != "=" {
		return f, errors.New("not KIND NAME = NUMBER")
	}
	f.kind, f.name = words[0], words[1]
	f.number, err = strconv.ParseUint(words[3], 10, 29)
	return f, err
}

// encode writes a message in protobuf's form. A name that the schema does not
// have is an error.
func (s schema) encode(message string, value map[string]any) ([]byte, error) {
	fields, ok := s[message]
	if !ok {
		return nil, fmt.Errorf("api.proto has no message %s", message)
	}
	var out []byte
	left := len(value)
	for _, f := range fields {
		v, ok := value[f.name]
		if !ok {
			continue
		}
		left--
		list := []any{v}
		if many, ok := v.([]any); ok && f.repeated {
			list = many
		}
		for _, one := range list {
			text, err := s.encodeField(f, one)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", message, f.name, err)
			}
			out = append(out, text...)
		}
	}
	if left != 0 {
		return nil, fmt.Errorf("a field that %s does not have, in %v", message, value)
	}
	return out, nil
}

func (s schema) encodeField(f field, value any) ([]byte, error) {
	var body []byte
	switch v := value.(type) {
	case string:
		body = []byte(v)
	case map[string]any:
		inner, err := s.encode(f.kind, v)
		if err != nil {
			return nil, err
		}
		body = inner
	case bool:
		n := uint64(0)
		if v {
			n = 1
		}
		return binary.AppendUvarint(binary.AppendUvarint(nil, f.number<<3|varint), n), nil
	case float64:
		if v != math.Trunc(v) {
			return nil, fmt.Errorf("%v is no whole number", v)
		}
		return binary.AppendUvarint(binary.AppendUvarint(nil, f.number<<3|varint), uint64(int64(v))), nil
	default:
		return nil, fmt.Errorf("%v cannot be a %s", value, f.kind)
	}
	head := binary.AppendUvarint(binary.AppendUvarint(nil, f.number<<3|sized), uint64(len(body)))
	return append(head, body...), nil
}

// decode reads a message. What the schema does not have is left out.
func (s schema) decode(message string, data []byte) (map[string]any, error) {
	fields := map[uint64]field{}
	for _, f := range s[message] {
		fields[f.number] = f
	}
	out := map[string]any{}
	for len(data) > 0 {
		number, body, n, rest, err := next(data)
		if err != nil {
			return nil, err
		}
		data = rest
		f, ok := fields[number]
		if !ok {
			continue
		}
		value, err := s.decodeField(f, body, n)
		if err != nil {
			return nil, err
		}
		if f.repeated {
			list, _ := out[f.name].([]any)
			value = append(list, value)
		}
		out[f.name] = value
	}
	return out, nil
}

// decodeField makes a value of what stood in a message: text, or a number.
func (s schema) decodeField(f field, text []byte, n uint64) (any, error) {
	switch f.kind {
	case "string", "bytes":
		return string(text), nil
	case "bool":
		return n != 0, nil
	case "int32", "int64":
		return int64(n), nil
	case "uint32", "uint64":
		return n, nil
	}
	return s.decode(f.kind, text)
}

// next takes a field off a message.
func next(data []byte) (number uint64, text []byte, n uint64, rest []byte, err error) {
	key, used := binary.Uvarint(data)
	if used <= 0 {
		return 0, nil, 0, nil, errCut
	}
	data = data[used:]
	switch key & 7 {
	case varint, sized:
		if n, used = binary.Uvarint(data); used <= 0 {
			return 0, nil, 0, nil, errCut
		}
		data = data[used:]
		if key&7 == varint {
			return key >> 3, nil, n, data, nil
		}
	case fixed8:
		n = 8
	case fixed4:
		n = 4
	default:
		return 0, nil, 0, nil, fmt.Errorf("a field written in the way %d", key&7)
	}
	if n > uint64(len(data)) {
		return 0, nil, 0, nil, errCut
	}
	return key >> 3, data[:n], 0, data[n:], nil
}
