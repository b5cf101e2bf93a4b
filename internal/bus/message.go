package bus

import (
	"encoding/binary"
	"errors"
)

// Kinds of messages.
const (
	kindCall, kindReturn, kindError, kindSignal = 1, 2, 3, 4
)

// Fields of a header.
const (
	fieldPath, fieldInterface, fieldMember, fieldErrorName, fieldReplySerial, fieldDestination, fieldSignature = 1, 2, 3, 4, 5, 6, 8
)

// A message is what was heard.
type message struct {
	kind                           byte
	replyTo                        uint32
	path, iface, member, errorName string
	body                           []Value
}

// callMessage is the call of a method, little-endian.
func callMessage(serial uint32, m Method, args []Value) ([]byte, error) {
	body, signature := encoder{}, ""
	for _, a := range args {
		if err := body.value(a); err != nil {
			return nil, err
		}
		signature += a.Type
	}
	field := func(code uint64, v Value) Value {
		return Value{Type: "(yv)", List: []Value{{Type: "y", Number: code}, Variant(v)}}
	}
	fields := Value{Type: "a(yv)", List: []Value{field(fieldPath, Value{Type: "o", Text: m.Path}), field(fieldInterface, String(m.Interface)), field(fieldMember, String(m.Member))}}
	if m.Destination != "" {
		fields.List = append(fields.List, field(fieldDestination, String(m.Destination)))
	}
	if signature != "" {
		fields.List = append(fields.List, field(fieldSignature, Value{Type: "g", Text: signature}))
	}
	e := encoder{b: []byte{'l', kindCall, 0, 1}}
	e.u32(uint32(len(body.b)))
	e.u32(serial)
	if err := e.value(fields); err != nil {
		return nil, err
	}
	e.align(8)
	return append(e.b, body.b...), nil
}

// fixedHeader is the part of a header that all messages have, up to the length
// of its fields.
const fixedHeader = 16

// mostMessage bounds a message. Systemd's answers to us have some hundred
// bytes.
const mostMessage = 1 << 18

var errForm = errors.New("its message makes no sense")

// messageSize is the length of the message that b begins with, or 0 where that
// is not known yet.
func messageSize(b []byte) (int, error) {
	if len(b) < fixedHeader {
		return 0, nil
	}
	order, err := orderOf(b[0])
	if err != nil {
		return 0, err
	}
	body, fields := order.Uint32(b[4:]), order.Uint32(b[12:])
	if b[3] != 1 || body > mostMessage || fields > mostMessage {
		return 0, errForm
	}
	return fixedHeader + (int(fields)+7)/8*8 + int(body), nil
}

func orderOf(b byte) (binary.ByteOrder, error) {
	switch b {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, errForm
}

// parseMessage reads a whole message.
func parseMessage(b []byte) (*message, error) {
	order, err := orderOf(b[0])
	if err != nil {
		return nil, err
	}
	m := &message{kind: b[1]}
	d := decoder{b: b, at: 12, order: order}
	fields, err := d.value("a(yv)", 0)
	if err != nil {
		return nil, err
	}
	signature := ""
	for _, f := range fields.List {
		v := f.List[1].List[0]
		switch f.List[0].Number {
		case fieldPath:
			m.path = v.Text
		case fieldInterface:
			m.iface = v.Text
		case fieldMember:
			m.member = v.Text
		case fieldErrorName:
			m.errorName = v.Text
		case fieldReplySerial:
			m.replyTo = uint32(v.Number)
		case fieldSignature:
			signature = v.Text
		}
	}
	if err := d.align(8); err != nil {
		return nil, err
	}
	d = decoder{b: b[d.at:], order: order}
	m.body, err = d.values(signature, 0)
	return m, err
}
