package resolver

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// Sizes of messages, in bytes. RFC 1035 4.2.1; RFC 9715 for the size that passes
// all networks.
const (
	headerSize   = 12
	plainUDP     = 512
	ourUDP       = 1232
	maxQuery     = 4096 // of a question; longer ones are nobody's
	maxUDP       = 4096 // of an answer by UDP, whatever is offered
	maxMessage   = 65535
	ttl          = 10 // seconds: containers come and go
	maxAddresses = 1024
)

// A query is a question as it came.
type query struct {
	raw      []byte
	id       uint16
	header   dnsmessage.Header
	question dnsmessage.Question
	edns     bool
	room     int // the largest answer that the asker takes by UDP
}

// parse reads a question. With an error of ok false nothing is answered; else
// rcode, if it is no success, is the answer.
func parse(raw []byte) (q query, rcode dnsmessage.RCode, ok bool) {
	if len(raw) < headerSize {
		return q, 0, false
	}
	q = query{raw: raw, id: binary.BigEndian.Uint16(raw), room: plainUDP}
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil || h.Response { // two who answer each other would never end
		return q, 0, false
	}
	q.header = h
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	if binary.BigEndian.Uint16(raw[4:]) != 1 {
		return q, dnsmessage.RCodeFormatError, true
	}
	if q.question, err = p.Question(); err != nil || p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	if !q.options(&p) {
		return q, dnsmessage.RCodeFormatError, true
	}
	if q.question.Class != dnsmessage.ClassINET {
		return q, dnsmessage.RCodeRefused, true
	}
	return q, dnsmessage.RCodeSuccess, true
}

// options looks for what RFC 6891 adds.
func (q *query) options(p *dnsmessage.Parser) bool {
	for {
		h, err := p.AdditionalHeader()
		switch {
		case err == dnsmessage.ErrSectionDone:
			return true
		case err != nil:
			return false
		case h.Type == dnsmessage.TypeOPT:
			q.edns = true
			q.room = min(max(int(h.Class), plainUDP), maxUDP)
		}
		if p.SkipAdditional() != nil {
			return false
		}
	}
}

// A reply is what is answered from here.
type reply struct {
	rcode     dnsmessage.RCode
	truncated bool
	addresses []netip.Addr
	pointer   string // a name with its last dot; empty: none
}

// build writes r as the answer to q, in at most limit bytes: what does not fit is
// left out, and said to be.
func build(q *query, r reply, limit int) []byte {
	for n := len(r.addresses); ; n = n * 3 / 4 {
		r.addresses = r.addresses[:n]
		b := pack(q, r)
		if len(b) <= limit || n == 0 {
			return b
		}
		r.truncated = true
	}
}

// pack writes r. What cannot be packed, a name that is none, is left out.
func pack(q *query, r reply) []byte {
	h := dnsmessage.Header{ID: q.id, Response: true, OpCode: q.header.OpCode, RecursionDesired: q.header.RecursionDesired,
		RecursionAvailable: true, CheckingDisabled: q.header.CheckingDisabled, Truncated: r.truncated, RCode: r.rcode}
	b := dnsmessage.NewBuilder(make([]byte, 0, plainUDP), h)
	b.EnableCompression()
	if q.question.Name.Length > 0 {
		_ = b.StartQuestions()
		_ = b.Question(q.question)
	}
	_ = b.StartAnswers()
	for _, a := range r.addresses {
		addAddress(&b, q.question.Name, a)
	}
	if name, err := dnsmessage.NewName(r.pointer); err == nil && r.pointer != "" {
		_ = b.PTRResource(record(q.question.Name), dnsmessage.PTRResource{PTR: name})
	}
	if q.edns {
		var opt dnsmessage.ResourceHeader
		_ = opt.SetEDNS0(ourUDP, 0, false)
		_ = b.StartAdditionals()
		_ = b.OPTResource(opt, dnsmessage.OPTResource{})
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

func record(name dnsmessage.Name) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}
}

func addAddress(b *dnsmessage.Builder, name dnsmessage.Name, a netip.Addr) {
	if a.Is4() {
		_ = b.AResource(record(name), dnsmessage.AResource{A: a.As4()})
		return
	}
	_ = b.AAAAResource(record(name), dnsmessage.AAAAResource{AAAA: a.As16()})
}

// shuffle brings addresses into an order of chance, so that who takes the first
// spreads what he asks over all.
func shuffle(all []netip.Addr) {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
}

// A verdict is what is thought of an answer from outside.
type verdict int

const (
	foreign verdict = iota // not the answer to this question: go on listening
	useless                // it is, but another server may know more
	final
)

// judge looks at what has come as the answer to q, which was sent with the id.
func judge(q *query, id uint16, raw []byte) verdict {
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil || h.ID != id || !h.Response || h.OpCode != q.header.OpCode {
		return foreign
	}
	refusal := h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError
	asked, err := p.AllQuestions()
	switch {
	case err != nil || len(asked) > 1:
		return foreign
	case len(asked) == 0 && refusal: // so do servers that could not read it
		return useless
	case len(asked) == 0 || !sameQuestion(asked[0], q.question):
		return foreign
	case refusal:
		return useless
	case h.Truncated: // the cut may be anywhere
		return final
	case p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil || p.SkipAllAdditionals() != nil:
		return foreign
	}
	return final
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && equalFold(a.Name.Data[:a.Name.Length], b.Name.Data[:b.Name.Length])
}

// equalFold is of ASCII alone: RFC 4343.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// passOn makes an answer from outside the answer to q: it gets the asker's id,
// and is cut where he takes no more.
func passOn(q *query, raw []byte, limit int) []byte {
	if len(raw) > limit {
		var p dnsmessage.Parser
		h, _ := p.Start(raw)
		return build(q, reply{rcode: h.RCode, truncated: true}, limit)
	}
	binary.BigEndian.PutUint16(raw, q.id)
	return raw
}
