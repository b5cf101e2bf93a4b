package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
)

// A filter of a listing of Ts has a key, and makes a test of each of its values,
// for which it may look at a C.
type filter[C, T any] struct {
	key, help string
	test      func(c C, value string) (func(T) bool, error)
}

// filterNames lists filters for help.
func filterNames[C, T any](table []filter[C, T]) string {
	var names []string
	for _, f := range table {
		names = append(names, f.key+"="+f.help)
	}
	return strings.Join(names, ", ")
}

// chosen are the tests of the filters that were given, by key.
type chosen[T any] map[string][]func(T) bool

// fit reports whether v passes all labels, and one test of each other key.
func (f chosen[T]) fit(v T) bool {
	for key, tests := range f {
		passes := func(t func(T) bool) bool { return t(v) }
		fails := func(t func(T) bool) bool { return !t(v) }
		if key == "label" && slices.ContainsFunc(tests, fails) || !slices.ContainsFunc(tests, passes) {
			return false
		}
	}
	return true
}

// choose makes the tests of filters, each of which is KEY=VALUE.
func choose[C, T any](table []filter[C, T], c C, words []string) (chosen[T], error) {
	f := chosen[T]{}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, badFilter(w, "bad format of filter (expected name=value)", filterNames(table))
		}
		key = strings.ToLower(strings.TrimSpace(key))
		i := slices.IndexFunc(table, func(row filter[C, T]) bool { return row.key == key })
		if i < 0 {
			return nil, badFilter(w, "invalid filter '"+key+"'", filterNames(table))
		}
		t, err := table[i].test(c, value)
		var docker dockersWords
		switch kind := fault.KindOf(err); {
		case err == errRegexp, kind != "" && kind != fault.Invalid:
			return nil, err
		case errors.As(err, &docker):
			return nil, badFilter(w, err.Error(), key+"="+table[i].help)
		case err != nil:
			return nil, badFilter(w, fmt.Sprintf("invalid filter '%s=%s'", key, value), key+"="+table[i].help)
		}
		f[key] = append(f[key], t)
	}
	return f, nil
}

func badFilter(word, why, hint string) error {
	return &fault.Error{Op: "use filter", On: word, Kind: fault.Invalid, Err: errors.New(why), Hint: hint}
}

// dockersWords are what Docker says of a filter's value, where that is not as of
// most.
type dockersWords string

func (e dockersWords) Error() string { return string(e) }

// filterBool is the value of the filter key, which is true or false.
func filterBool(key, value string) (bool, error) {
	is, err := strconv.ParseBool(value)
	if err != nil {
		err = dockersWords("invalid filter '" + key + "=[" + value + "]'")
	}
	return is, err
}

// hasLabel looks for KEY or KEY=VALUE.
func hasLabel(labels map[string]string, label string) bool {
	key, want, exact := strings.Cut(label, "=")
	have, ok := labels[key]
	return ok && (!exact || have == want)
}
