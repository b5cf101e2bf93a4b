package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
)

// An Option is one row of a command's table of options.
type Option struct {
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

// names splits "-e, --env" into "-e" and "--env".
func (o Option) names() []string { return strings.Split(o.Names, ", ") }

// errHelp says that --help (or -h, where it is not an option of the command)
// was among the options.
var errHelp = errors.New("help is wanted")

// parse takes the options out of args and returns the rest. Options may stand
// anywhere before "--", or with rest only before the first argument. Forms:
// --name value, --name=value, -n value, -nvalue, -n=value, and -abc for
// switches together.
func parse(options []Option, args []string, rest bool) ([]string, error) {
	var left []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(left, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			left = append(left, arg)
			if rest {
				return append(left, args...), nil
			}
			continue
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

// lookup finds the option that has name, or nil.
func lookup(options []Option, name string) *Option {
	for i := range options {
		for n := range strings.SplitSeq(options[i].Names, ", ") {
			if n == name {
				return &options[i]
			}
		}
	}
	return nil
}

func parseLong(options []Option, arg string, args []string) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	o := lookup(options, name)
	if o == nil {
		return nil, noOption(options, name)
	}
	if !has && o.Value == "" {
		value, has = "true", true
	}
	return set(o, name, value, has, args)
}

func parseShort(options []Option, arg string, args []string) ([]string, error) {
	for i := 1; i < len(arg); i++ {
		name := "-" + arg[i:i+1]
		o := lookup(options, name)
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

// noOption is the error for an unknown option, with the nearest known one; or
// errHelp where it asks for help.
func noOption(options []Option, name string) error {
	if name == "--help" || name == "-h" {
		return errHelp
	}
	known := []string{"--help"}
	for _, o := range options {
		known = append(known, o.names()...)
	}
	err := badOption(name, errors.New("there is no such option"))
	if near := nearest(name, known); near != "" {
		err.Hint = fmt.Sprintf("did you mean %s?", near)
	}
	return err
}

func set(o *Option, name, value string, has bool, args []string) ([]string, error) {
	if !has {
		if len(args) == 0 {
			return nil, badOption(name, fmt.Errorf("it needs a value: %s", o.Value))
		}
		value, args = args[0], args[1:]
	}
	if err := o.Var(value); err != nil {
		return nil, badOption(name, fmt.Errorf("%q: %w", value, err))
	}
	return args, nil
}

func badOption(name string, err error) *fault.Error {
	return &fault.Error{Op: "take option", On: name, Kind: fault.Invalid, Err: err}
}

// longestName bounds what is compared: nothing of ours is as long.
const longestName = 64

// nearest is the candidate that typed was most likely meant to be, or "": it
// is at most a third of the letters away.
func nearest(typed string, candidates []string) string {
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
