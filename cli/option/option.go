// Package option takes the options out of a command line, by a table.
//
//	takes    rows, words
//	gives    the words that are left; each value to where its row says
//	touches  nothing
//	state    none
//
// The forms are those of Docker and of getopt_long(3); a Style adds others.
package option

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
)

// A Row is one option of a command. It is a struct without a name, so that
// tables in other packages may write their rows without naming the columns.
type Row = struct {
	Names string // "-e, --env", as help shows them
	Value string // what follows, as help names it: "KEY=VALUE"; empty: a switch
	Help  string // one line, without a full stop
	Var   Var    // where it goes
}

// A Var takes an option's value. A switch gets "true" or "false".
type Var func(value string) error

// Bool is a switch.
func Bool(p *bool) Var {
	return func(s string) error {
		v, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("want true or false")
		}
		*p = v
		return nil
	}
}

// String takes the last value given.
func String(p *string) Var { return func(s string) error { *p = s; return nil } }

// Strings collects every value given.
func Strings(p *[]string) Var { return func(s string) error { *p = append(*p, s); return nil } }

// Int takes a whole number.
func Int(p *int64) Var {
	return func(s string) error {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return errors.New("want a whole number")
		}
		*p = v
		return nil
	}
}

// Size takes bytes with an optional unit as Docker writes them: b, k, m, g, t
// (powers of 1024, either case, "kb" and "KiB" likewise), and -1.
func Size(p *int64) Var {
	return func(s string) error {
		v, err := ParseSize(s)
		if err != nil {
			return err
		}
		*p = v
		return nil
	}
}

// sizeUnit is the factor that a unit stands for, 0 where it is none.
func sizeUnit(unit string) float64 {
	switch unit {
	case "":
		return 1
	case "k":
		return 1 << 10
	case "m":
		return 1 << 20
	case "g":
		return 1 << 30
	case "t":
		return 1 << 40
	case "p":
		return 1 << 50
	}
	return 0
}

// ParseSize is the number of bytes that s says, as Size takes it.
func ParseSize(s string) (int64, error) {
	bad := errors.New("want a size such as 64M or 1.5g")
	if s == "-1" {
		return -1, nil
	}
	number := strings.TrimRight(s, "bBiIkKmMgGtTpP ")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s[len(number):])), "b"), "i")
	factor := sizeUnit(unit)
	v, err := strconv.ParseFloat(number, 64)
	if factor == 0 || err != nil || !(v >= 0) || v*factor >= 1<<63 {
		return 0, bad
	}
	return int64(v * factor), nil
}

// Names splits "-e, --env" into "-e" and "--env".
func Names(o Row) []string { return strings.Split(o.Names, ", ") }

// ErrHelp says that --help (or -h, where it is not an option of the command)
// was among the options.
var ErrHelp = errors.New("help is wanted")

// A Style is how a command's line is read. Zero: options may stand anywhere
// before "--". Styles are added with |.
type Style int

const (
	// Rest: options end at the first argument, as in "run IMAGE ls -l".
	Rest Style = 1 << iota
	// AnyDash: one dash may stand before a long name and two before a short
	// one, as Go's package flag has it. An argument that looks like an option
	// but is none is taken as an argument where one has come before, as in
	// "kill ID -9".
	AnyDash
)

// Parse takes the options out of args and returns the rest. Forms: --name value,
// --name=value, -n value, -nvalue, -n=value, and -abc for switches together.
func Parse(options []Row, args []string, style Style) ([]string, error) {
	var left []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(left, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			left = append(left, arg)
			if style&Rest != 0 {
				return append(left, args...), nil
			}
			continue
		case style&AnyDash != 0:
			known := withDashes(options, arg)
			if known == "" && len(left) > 0 {
				left = append(left, arg)
				continue
			}
			arg = cmp.Or(known, arg)
		}
		var err error
		if strings.HasPrefix(arg, "--") {
			args, err = parseLong(options, arg, args)
		} else {
			args, err = parseShort(options, arg, args)
		}
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}

// withDashes writes arg with as many dashes as the table has, or is "" where
// the table has no such name.
func withDashes(options []Row, arg string) string {
	name := strings.TrimPrefix(arg[1:], "-")
	bare, _, _ := strings.Cut(name, "=")
	switch {
	case Lookup(options, "--"+bare) != nil || bare == "help":
		return "--" + name
	case Lookup(options, "-"+bare) != nil || bare == "h":
		return "-" + name
	case arg[1] != '-' && Lookup(options, arg[:2]) != nil:
		return arg
	}
	return ""
}

// Lookup finds the option that has name, or nil.
func Lookup(options []Row, name string) *Row {
	for i := range options {
		for n := range strings.SplitSeq(options[i].Names, ", ") {
			if n == name {
				return &options[i]
			}
		}
	}
	return nil
}

func parseLong(options []Row, arg string, args []string) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	o := Lookup(options, name)
	if o == nil {
		return nil, noOption(options, name)
	}
	if !has && o.Value == "" {
		value, has = "true", true
	}
	return set(o, name, value, has, args)
}

func parseShort(options []Row, arg string, args []string) ([]string, error) {
	for i := 1; i < len(arg); i++ {
		name := "-" + arg[i:i+1]
		o := Lookup(options, name)
		if o == nil {
			return nil, noOption(options, name)
		}
		tail := arg[i+1:]
		if o.Value != "" {
			return set(o, name, strings.TrimPrefix(tail, "="), tail != "", args)
		}
		if v, ok := strings.CutPrefix(tail, "="); ok {
			return set(o, name, v, true, args)
		}
		if _, err := set(o, name, "true", true, nil); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// Open goes over the words given after a command's name, as completion needs
// it. It returns the option whose value comes next, if one does, and the number
// of arguments so far.
func Open(options []Row, given []string, rest bool) (open *Row, args int) {
	for i := 0; i < len(given); i++ {
		word := given[i]
		switch {
		case word == "--":
			return nil, args + len(given) - i - 1
		case len(word) < 2 || word[0] != '-':
			args++
			if rest {
				return nil, args + len(given) - i - 1
			}
			continue
		}
		o := takesNext(options, word)
		switch {
		case o == nil:
		case i == len(given)-1:
			return o, args
		default:
			i++
		}
	}
	return nil, args
}

// takesNext is the option in word that takes the word after it as its value.
func takesNext(options []Row, word string) *Row {
	if strings.HasPrefix(word, "--") {
		if o := Lookup(options, word); o != nil && o.Value != "" {
			return o
		}
		return nil
	}
	for i := 1; i < len(word); i++ {
		o := Lookup(options, "-"+word[i:i+1])
		if o == nil || o.Value != "" && i < len(word)-1 {
			return nil
		}
		if o.Value != "" {
			return o
		}
	}
	return nil
}

// noOption is the error for an unknown option, with the nearest known one; or
// ErrHelp where it asks for help.
func noOption(options []Row, name string) error {
	if name == "--help" || name == "-h" {
		return ErrHelp
	}
	known := []string{"--help"}
	for _, o := range options {
		known = append(known, Names(o)...)
	}
	err := Bad(name, errors.New("there is no such option"))
	if near := Nearest(name, known); near != "" {
		err.Hint = fmt.Sprintf("did you mean %s?", near)
	}
	return err
}

func set(o *Row, name, value string, has bool, args []string) ([]string, error) {
	if !has {
		if len(args) == 0 {
			return nil, Bad(name, fmt.Errorf("it requires an argument: %s", o.Value))
		}
		value, args = args[0], args[1:]
	}
	if err := o.Var(value); err != nil {
		return nil, Bad(name, fmt.Errorf("%q: %w", value, err))
	}
	return args, nil
}

// Bad says that the option called name was given wrongly.
func Bad(name string, err error) *fault.Error {
	return &fault.Error{Op: "take option", On: name, Kind: fault.Invalid, Err: err}
}

// longestName bounds what is compared: nothing of ours is as long.
const longestName = 64

// Nearest is the candidate that typed was most likely meant to be, or "": it
// is at most a third of the letters away.
func Nearest(typed string, candidates []string) string {
	best, least := "", len(typed)/3+1
	if len(typed) > longestName {
		return ""
	}
	for _, c := range candidates {
		if d := distance(typed, c); d < least || d == least && best == "" {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour that make b of a.
func distance(a, b string) int {
	if len(a) > longestName || len(b) > longestName {
		return longestName
	}
	var d [longestName + 1][longestName + 1]int
	for i := range len(a) + 1 {
		d[i][0] = i
	}
	for j := range len(b) + 1 {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
