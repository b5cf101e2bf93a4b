// Package fault is the one error type of Kiste: what was asked, of which
// object, what kind of failure it is, and what a person can do about it.
//
//	takes    an operation, an object, a cause
//	gives    an error with a Kind for programs and a hint for people
//	touches  nothing
//	state    none
//
// The kind is found where it is known best: a wrapped error keeps its kind,
// and a bare errno has one of its own. Doors translate kinds by one table each
// (exit code, HTTP status, gRPC code). All of the package is safe for
// concurrent use.
package fault

import (
	"errors"
	"io/fs"
	"strconv"
	"syscall"
)

// A Kind is the part of an error that a program may act on.
type Kind string

// The kinds. A Kind is itself an error, so errors.Is(err, fault.NotFound)
// works.
const (
	Invalid     Kind = "invalid argument"
	NotFound    Kind = "not found"
	Exists      Kind = "already exists"
	Conflict    Kind = "in use or in the wrong state"
	Denied      Kind = "not permitted"
	Unsupported Kind = "not supported by this host"
	Unavailable Kind = "not available"
)

func (k Kind) Error() string { return string(k) }

// An Error says what could not be done. Its text reads on after "cannot":
// the Op is a verb in its base form ("mount", "pull image").
type Error struct {
	Op   string // what was tried
	On   string // the object: a path, a name, a field; may be empty
	Kind Kind   // empty: the cause's kind
	Hint string // the remedy, a sentence without a full stop; empty: the cause's
	Err  error  // the cause; nil: the kind is the cause
}

func (e *Error) Error() string {
	s := e.Op
	if e.On != "" {
		s += " " + strconv.Quote(e.On)
	}
	if e.Err != nil {
		return s + ": " + e.Err.Error()
	}
	return s + ": " + e.Kind.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, fault.NotFound) work.
func (e *Error) Is(target error) bool { k, ok := target.(Kind); return ok && KindOf(e) == k }

// errnoKind gives an errno its kind where nobody set one. It is a switch and
// not a map, which every start would have to fill.
func errnoKind(e syscall.Errno) Kind {
	switch e {
	case syscall.EINVAL, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.ENOTDIR:
		return Invalid
	case syscall.ENOENT, syscall.ESRCH, syscall.ENXIO:
		return NotFound
	case syscall.EEXIST:
		return Exists
	case syscall.EBUSY, syscall.ENOTEMPTY, syscall.ETXTBSY:
		return Conflict
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return Denied
	case syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENODEV:
		return Unsupported
	case syscall.EAGAIN, syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EIO, syscall.ECONNREFUSED:
		return Unavailable
	}
	return ""
}

// KindOf returns the kind of err: the outermost that is set, else that of the
// errno at its root, else "".
func KindOf(err error) Kind {
	var kind Kind
	walk(err, func(e error) bool {
		switch k := e.(type) {
		case Kind:
			kind = k
		case *Error:
			kind = k.Kind
		case syscall.Errno:
			kind = errnoKind(k)
		}
		return kind != ""
	})
	switch {
	case kind != "":
		return kind
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrExist):
		return Exists
	case errors.Is(err, fs.ErrPermission):
		return Denied
	}
	return ""
}

// HintOf returns the outermost hint of err, or "".
func HintOf(err error) string {
	hint := ""
	walk(err, func(e error) bool {
		if f, ok := e.(*Error); ok {
			hint = f.Hint
		}
		return hint != ""
	})
	return hint
}

// walk visits err and its causes, the outermost first and of joined errors the
// first one first, until visit says that it has found what it looks for.
func walk(err error, visit func(error) bool) bool {
	for err != nil {
		if visit(err) {
			return true
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, cause := range e.Unwrap() {
				if walk(cause, visit) {
					return true
				}
			}
			return false
		default:
			return false
		}
	}
	return false
}
