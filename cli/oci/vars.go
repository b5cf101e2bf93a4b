package oci

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
)

// oneOf takes one of words.
func oneOf(p *string, words ...string) option.Var {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return errors.New("want " + strings.Join(words, " or "))
		}
		*p = s
		return nil
	}
}

// trueFalseAuto takes what runc takes: a truth, or "auto" in any case.
func trueFalseAuto(p *string) option.Var {
	return func(s string) error {
		if s == "" || strings.EqualFold(s, "auto") {
			*p = "auto"
			return nil
		}
		v, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("want true, false or auto")
		}
		*p = strconv.FormatBool(v)
		return nil
	}
}

// count takes a number of things, in any base that Go writes numbers in.
func count(p *int) option.Var {
	return func(s string) error {
		v, err := strconv.ParseInt(s, 0, 32)
		if err != nil || v < 0 {
			return errors.New("want a number, 0 or more")
		}
		*p = int(v)
		return nil
	}
}

// path takes the name of a file, made absolute at once: the bundle becomes the
// working directory later.
func path(p *string) option.Var {
	return func(s string) error {
		if s == "" {
			*p = ""
			return nil
		}
		abs, err := absolute(s)
		*p = abs
		return err
	}
}

func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	return abs, nil
}

// pointer takes a value that read understands, and tells it apart from none.
func pointer[T any](p **T, read func(string) (T, error)) option.Var {
	return func(s string) error {
		v, err := read(s)
		if err == nil {
			*p = &v
		}
		return err
	}
}
