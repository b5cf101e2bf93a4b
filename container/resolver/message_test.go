package resolver

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// ask packs a question; room is what EDNS says, 0 without it.
func askFor(name string, kind dnsmessage.Type, room int) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 0x1234, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET})
	if room > 0 {
		var h dnsmessage.ResourceHeader
		_ = h.SetEDNS0(room, 0, true)
		_ = b.StartAdditionals()
		_ = b.OPTResource(h, dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookies!")}}})
	}
	msg, err := b.Finish()
	if err != nil {
		panic(err)
	}
	return msg
}

func changed(msg []byte, do func([]byte)) []byte {
	msg = append([]byte(nil), msg...)
	do(msg)
	return msg
}

func TestParseQuestions(t *testing.T) {
	good := askFor("a.b.", dnsmessage.TypeA, 0)
	const silence = "silence"
	for _, tt := range []struct {
		name string
		raw  []byte
		want string
		room int
	}{
		{"plain", good, "RCodeSuccess", 512},
		{"with options", askFor("a.b.", dnsmessage.TypeA, 1400), "RCodeSuccess", 1400},
		{"that takes too little", askFor("a.b.", dnsmessage.TypeA, 1), "RCodeSuccess", 512},
		{"that takes too much", askFor("a.b.", dnsmessage.TypeA, 65535), "RCodeSuccess", 4096},
		{"that is an answer", changed(good, func(b []byte) { b[2] |= 0x80 }), silence, 0},
		{"without a header", good[:11], silence, 0},
		{"empty", nil, silence, 0},
		{"of another operation", changed(good, func(b []byte) { b[2] |= 0x28 }), "RCodeNotImplemented", 512},
		{"without questions", changed(good, func(b []byte) { b[5] = 0 }), "RCodeFormatError", 512},
		{"with two questions", changed(good, func(b []byte) { b[5] = 2 }), "RCodeFormatError", 512},
		{"that is cut", good[:len(good)-1], "RCodeFormatError", 512},
		{"with answers that are not there", changed(good, func(b []byte) { b[7] = 1 }), "RCodeFormatError", 512},
		{"with options that are not there", changed(good, func(b []byte) { b[11] = 1 }), "RCodeFormatError", 512},
		{"whose name points at itself", append(changed(good[:12], func(b []byte) {}), 0xc0, 12, 0, 1, 0, 1), "RCodeFormatError", 512},
		{"of another class", changed(good, func(b []byte) { b[len(b)-1] = 3 }), "RCodeRefused", 512},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, rcode, ok := parse(tt.raw)
			got := rcode.String()
			if !ok {
				got = silence
			}
			if got != tt.want || ok && (q.room != tt.room || q.id != 0x1234) {
				t.Errorf("%s, %+v; want %s", got, q, tt.want)
			}
			if !ok {
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(build(&q, reply{rcode: rcode}, q.room)); err != nil || m.ID != q.id || !m.Response || m.RCode != rcode {
				t.Errorf("answered by %+v, %v", m, err)
			}
		})
	}
}

func TestLongAnswersAreCut(t *testing.T) {
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	for _, tt := range []struct {
		room, limit int
		cut         bool
	}{{0, 512, true}, {1232, 1232, true}, {4096, 4096, false}, {0, maxMessage, false}} {
		q, _, _ := parse(askFor("www.front.", dnsmessage.TypeA, tt.room))
		raw := build(&q, reply{addresses: many}, tt.limit)
		var m dnsmessage.Message
		err := m.Unpack(raw)
		if err != nil || len(raw) > tt.limit || m.Truncated != tt.cut || len(m.Answers) == 0 || tt.cut != (len(m.Answers) < 200) {
			t.Errorf("in %d bytes: %d bytes with %d answers, cut %v, %v", tt.limit, len(raw), len(m.Answers), m.Truncated, err)
		}
		if hasOptions := len(m.Additionals) == 1; hasOptions != (tt.room > 0) {
			t.Errorf("options in the answer: %v", m.Additionals)
		}
	}
}

// answerTo is an answer to raw, with one address.
func answerTo(raw []byte, id uint16, change func(*dnsmessage.Message)) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		panic(err)
	}
	m.ID, m.Response, m.RecursionAvailable = id, true, true
	m.Additionals = nil
	m.Answers = []dnsmessage.Resource{{Header: record(m.Questions[0].Name), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func TestJudgeAnswers(t *testing.T) {
	ask := askFor("a.example.", dnsmessage.TypeA, 0)
	q, _, _ := parse(ask)
	is := func(change func(*dnsmessage.Message)) []byte { return answerTo(ask, 7, change) }
	rcode := func(r dnsmessage.RCode) []byte {
		return is(func(m *dnsmessage.Message) { m.RCode, m.Answers = r, nil })
	}
	for _, tt := range []struct {
		name string
		raw  []byte
		want verdict
	}{
		{"an address", is(nil), final},
		{"in other letters", is(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("A.eXample.") }), final},
		{"none", is(func(m *dnsmessage.Message) { m.Answers = nil }), final},
		{"there is no such name", rcode(dnsmessage.RCodeNameError), final},
		{"it was cut", is(func(m *dnsmessage.Message) { m.Truncated = true }), final},
		{"it was cut anywhere", is(func(m *dnsmessage.Message) { m.Truncated = true })[:40], final},
		{"the server failed", rcode(dnsmessage.RCodeServerFailure), useless},
		{"refused", rcode(dnsmessage.RCodeRefused), useless},
		{"not understood", rcode(dnsmessage.RCodeFormatError), useless},
		{"not understood, so without the question", is(func(m *dnsmessage.Message) { m.RCode, m.Answers, m.Questions = dnsmessage.RCodeFormatError, nil, nil }), useless},
		{"another id", answerTo(ask, 8, nil), foreign},
		{"a question", is(func(m *dnsmessage.Message) { m.Response = false }), foreign},
		{"another name", is(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("b.example.") }), foreign},
		{"another type", is(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA }), foreign},
		{"no question", is(func(m *dnsmessage.Message) { m.Questions = nil }), foreign},
		{"two questions", is(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }), foreign},
		{"less than it says", changed(is(nil), func(b []byte) { b[7] = 2 }), foreign},
		{"the half of it", is(nil)[:30], foreign},
		{"nothing", nil, foreign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(&q, 7, tt.raw); got != tt.want {
				t.Errorf("judged %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPassOn(t *testing.T) {
	ask := askFor("a.example.", dnsmessage.TypeA, 0)
	q, _, _ := parse(ask)
	long := answerTo(ask, 7, func(m *dnsmessage.Message) {
		for range 40 {
			m.Answers = append(m.Answers, m.Answers[0])
		}
	})
	for limit, cut := range map[int]bool{512: true, 4096: false} {
		var m dnsmessage.Message
		raw := passOn(&q, append([]byte(nil), long...), limit)
		if err := m.Unpack(raw); err != nil || len(raw) > limit || m.ID != 0x1234 || m.Truncated != cut {
			t.Errorf("in %d: %d bytes, %+v, %v", limit, len(raw), m.Header, err)
		}
	}
}

// What a container sends is answered in its size with its id, or not at all.
func FuzzQuestion(f *testing.F) {
	f.Add(askFor("www.front.", dnsmessage.TypeA, 0))
	f.Add(askFor("2.0.9.10.in-addr.arpa.", dnsmessage.TypePTR, 1232))
	f.Add(append(changed(askFor(".", dnsmessage.TypeA, 0)[:12], func([]byte) {}), 0xc0, 12, 0, 1, 0, 1))
	b := write([]Container{web, web2, db})
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, rcode, ok := parse(raw)
		if !ok {
			return
		}
		r := reply{rcode: rcode}
		if rcode == dnsmessage.RCodeSuccess {
			r = b.look(&web2, q.question).reply
		}
		out := build(&q, r, q.room)
		var p dnsmessage.Parser
		h, err := p.Start(out)
		if err != nil || len(out) > q.room || h.ID != binary.BigEndian.Uint16(raw) || !h.Response {
			t.Errorf("%x is answered by %x, %v", raw, out, err)
		}
		if id, msg := anew(&q, 0); judge(&q, id, msg) != foreign {
			t.Errorf("%x is taken for the answer to itself", raw)
		}
	})
}

// What a server sends is passed on in the asker's size with his id, or not at
// all.
func FuzzAnswer(f *testing.F) {
	ask := askFor("a.example.", dnsmessage.TypeA, 0)
	q, _, _ := parse(ask)
	f.Add(answerTo(ask, 7, nil))
	f.Add(answerTo(ask, 7, func(m *dnsmessage.Message) { m.Truncated, m.RCode = true, 3 }))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if judge(&q, 7, raw) == foreign {
			return
		}
		out := passOn(&q, append([]byte(nil), raw...), plainUDP)
		var p dnsmessage.Parser
		if h, err := p.Start(out); err != nil || h.ID != q.id || !h.Response || len(out) > plainUDP {
			t.Errorf("%x is passed on as %x, %v", raw, out, err)
		}
	})
}

// The host's file is read as the C library reads it.
func FuzzServers(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions edns0\nsearch a b\n")
	f.Add("nameserver fe80::1%eth0\n# x\nnameserver\t10.0.0.1 # y\n")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(parseServers(text)); n == 0 || n > maxServers {
			t.Errorf("%q names %d servers", text, n)
		}
	})
}
