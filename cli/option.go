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

var sizeUnit = map[string]float64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}

// ParseSize is the number of bytes that s says, as Size takes it.
func ParseSize(s string) (int64, error) {
	bad := fmt.Errorf("want a size such as 64M or 1.5g")
	if s == "-1" {
		return -1, nil
	}
	number := strings.TrimRight(s, "bBiIkKmMgGtTpP ")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s[len(number):])), "b"), "i")
	factor, ok := sizeUnit[unit]
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || v < 0 || v*factor >= 1<<63 {
		return 0, bad
	}
	return int64(v * factor), nil
}

// names splits "-e, --env" into "-e" and "--env".
func (o Option) names() []string { return strings.Split(o.Names, ", ") }

// parse takes the options out of args and returns the rest. Options may stand
// anywhere before "--", or with rest only before the first argument. Forms:
// --name value, --name=value, -n value, -nvalue, -n=value, and -abc for
// switches together.
func parse(options []Option, args []string, rest bool) ([]string, error) {
	byName := map[string]*Option{}
	for i := range options {
		for _, n := range options[i].names() {
			byName[n] = &options[i]
		}
	}
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
			args, err = parseLong(byName, arg, args)
		} else {
			args, err = parseShort(byName, arg, args)
		}
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}

func parseLong(byName map[string]*Option, arg string, args []string) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	o := byName[name]
	if o == nil {
		return nil, badOption(name, errors.New("there is no such option"))
	}
	if !has && o.Value == "" {
		value, has = "true", true
	}
	return set(o, name, value, has, args)
}

func parseShort(byName map[string]*Option, arg string, args []string) ([]string, error) {
	for i := 1; i < len(arg); i++ {
		name := "-" + arg[i:i+1]
		o := byName[name]
		if o == nil {
			return nil, badOption(name, errors.New("there is no such option"))
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

func badOption(name string, err error) error {
	return &fault.Error{Op: "take option", On: name, Kind: fault.Invalid, Err: err}
}
