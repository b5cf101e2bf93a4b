package oci

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
)

// A pattern is an extended regular expression of regex(7), as a list of steps:
// Pike's machine, whose time grows with the text and not with the choices.
// Package regexp is not linked, since its tables would cost every start.
type pattern []patternStep

// A patternStep takes a letter (set is not nil) and goes on at the next step;
// or goes on at every step of next without taking one.
type patternStep struct {
	set    *[256]bool
	next   []int
	anchor byte // '^' or '$': only there
}

// maxSteps bounds what repetitions within repetitions can make.
const maxSteps = 10000

// compilePattern reads an expression. Classes such as [[:alpha:]] and back
// references are not known.
func compilePattern(text string) (pattern, error) {
	p := &patternParser{text: text}
	steps, err := p.choice()
	if err == nil && p.text != "" {
		err = errors.New("unexpected " + strconv.Quote(p.text[:1]))
	}
	if err != nil {
		return nil, &fault.Error{Op: "read regular expression", On: text, Kind: fault.Invalid, Err: err}
	}
	return steps, nil
}

// matches reports whether the expression matches text or a part of it.
func (p pattern) matches(text string) bool {
	now := make([]bool, len(p)+1)
	for i := 0; ; i++ {
		p.reach(now, 0, i == 0, i == len(text))
		if now[len(p)] {
			return true
		}
		if i == len(text) {
			return false
		}
		then := make([]bool, len(p)+1)
		for at, here := range now[:len(p)] {
			if set := p[at].set; here && set != nil && set[text[i]] {
				p.reach(then, at+1, false, i+1 == len(text))
			}
		}
		now = then
	}
}

// reach marks the steps that can be come to from at without taking a letter.
func (p pattern) reach(marks []bool, at int, first, last bool) {
	open := []int{at}
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		if marks[at] {
			continue
		}
		marks[at] = true
		if at == len(p) || p[at].anchor == '^' && !first || p[at].anchor == '$' && !last {
			continue
		}
		open = append(open, p[at].next...)
	}
}

type patternParser struct {
	text string
	deep int
}

// Steps refer to each other by number; moved shifts them.
func moved(p pattern, by int) pattern {
	out := slices.Clone(p)
	for i := range out {
		out[i].next = slices.Clone(out[i].next)
		for j := range out[i].next {
			out[i].next[j] += by
		}
	}
	return out
}

// after is a and then b.
func after(a, b pattern) pattern { return append(slices.Clip(a), moved(b, len(a))...) }

// either is a or b.
func either(a, b pattern) pattern {
	out := pattern{{next: []int{1, len(a) + 2}}}
	out = append(out, moved(a, 1)...)
	out = append(out, patternStep{next: []int{len(a) + len(b) + 2}})
	return append(out, moved(b, len(a)+2)...)
}

// repeated is a at least so many times and at most so many, or without end.
func repeated(a pattern, least, most int) (pattern, error) {
	if len(a)*(max(least, most)+1) > maxSteps {
		return nil, errors.New("it is too long")
	}
	var out pattern
	for range least {
		out = after(out, a)
	}
	if most < 0 {
		loop := append(pattern{{next: []int{1, len(a) + 2}}}, moved(a, 1)...)
		return after(out, append(loop, patternStep{next: []int{0}})), nil
	}
	for range most - least {
		out = after(out, append(pattern{{next: []int{1, len(a) + 1}}}, moved(a, 1)...))
	}
	return out, nil
}

// maxDeep bounds groups within groups.
const maxDeep = 100

func (p *patternParser) choice() (pattern, error) {
	if p.deep++; p.deep > maxDeep {
		return nil, errors.New("it has too many groups within groups")
	}
	defer func() { p.deep-- }()
	out, err := p.sequence()
	for err == nil && strings.HasPrefix(p.text, "|") {
		p.text = p.text[1:]
		var other pattern
		if other, err = p.sequence(); err == nil {
			out = either(out, other)
		}
	}
	return out, err
}

func (p *patternParser) sequence() (pattern, error) {
	var out pattern
	for p.text != "" && p.text[0] != '|' && !(p.text[0] == ')' && p.deep > 1) {
		atom, err := p.atom()
		for err == nil && p.text != "" && strings.IndexByte("*+?{", p.text[0]) >= 0 {
			atom, err = p.repetition(atom)
		}
		if err != nil {
			return nil, err
		}
		if out = after(out, atom); len(out) > maxSteps {
			return nil, errors.New("it is too long")
		}
	}
	return out, nil
}

func (p *patternParser) atom() (pattern, error) {
	c := p.text[0]
	p.text = p.text[1:]
	switch c {
	case '(':
		inner, err := p.choice()
		if err == nil && !strings.HasPrefix(p.text, ")") {
			err = errors.New("missing )")
		}
		if err != nil {
			return nil, err
		}
		p.text = p.text[1:]
		return inner, nil
	case '^', '$':
		return pattern{{anchor: c, next: []int{1}}}, nil
	case '.':
		set := everything()
		return pattern{{set: &set}}, nil
	case '[':
		return p.set()
	case '*', '+', '?', '{':
		return nil, errors.New("nothing to repeat before " + strconv.Quote(string(c)))
	case ')':
		return nil, errors.New("unexpected )")
	case '\\':
		if p.text == "" {
			return nil, errors.New("\\ at the end")
		}
		c = p.text[0]
		p.text = p.text[1:]
	}
	var set [256]bool
	set[c] = true
	return pattern{{set: &set}}, nil
}

func everything() (set [256]bool) {
	for i := range set {
		set[i] = true
	}
	return set
}

// set reads what follows a [: letters and ranges, ^ first for all others.
func (p *patternParser) set() (pattern, error) {
	var set [256]bool
	others := strings.HasPrefix(p.text, "^")
	p.text = strings.TrimPrefix(p.text, "^")
	for first := true; ; first = false {
		end := strings.IndexByte(p.text, ']')
		switch {
		case p.text == "":
			return nil, errors.New("missing ]")
		case end == 0 && !first:
			p.text = p.text[1:]
			for i := range set {
				set[i] = set[i] != others
			}
			return pattern{{set: &set}}, nil
		case strings.HasPrefix(p.text, "[:"), strings.HasPrefix(p.text, "[="), strings.HasPrefix(p.text, "[."):
			return nil, errors.New("classes of letters are not known")
		}
		from, to := p.text[0], p.text[0]
		p.text = p.text[1:]
		if len(p.text) > 1 && p.text[0] == '-' && p.text[1] != ']' {
			to, p.text = p.text[1], p.text[2:]
		}
		if from > to {
			return nil, errors.New("a range that goes down")
		}
		for c := int(from); c <= int(to); c++ {
			set[c] = true
		}
	}
}

// repetition reads one of * + ? {N} {N,} {N,M} after an atom.
func (p *patternParser) repetition(atom pattern) (pattern, error) {
	c := p.text[0]
	p.text = p.text[1:]
	switch c {
	case '*':
		return repeated(atom, 0, -1)
	case '+':
		return repeated(atom, 1, -1)
	case '?':
		return repeated(atom, 0, 1)
	}
	inner, rest, closed := strings.Cut(p.text, "}")
	low, high, ranged := strings.Cut(inner, ",")
	least, err := strconv.ParseUint(low, 10, 8)
	most := least
	if ranged && err == nil && high != "" {
		most, err = strconv.ParseUint(high, 10, 8)
	}
	if !closed || err != nil || most < least {
		return nil, errors.New("want {N}, {N,} or {N,M}, at most 255")
	}
	p.text = rest
	if ranged && high == "" {
		return repeated(atom, int(least), -1)
	}
	return repeated(atom, int(least), int(most))
}
