package privilege

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
)

// Infinity is "no limit": RLIM_INFINITY of getrlimit(2).
const Infinity = ^uint64(0)

// An Rlimit is one resource limit of getrlimit(2).
type Rlimit struct {
	Resource int    `json:"-"`    // RLIMIT_ of sys/resource.h
	Name     string `json:"name"` // as Docker writes it: "nofile"

	// In the resource's own unit: bytes, seconds, processes, files.
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// rlimits are the resources by number; the numbers are those of every
// architecture that Kiste is built for.
const rlimits = "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime "

// RlimitNumber is the number of a resource named as Docker ("nofile") or OCI
// ("RLIMIT_NOFILE") writes it.
func RlimitNumber(name string) (int, error) {
	short := strings.ToLower(strings.TrimPrefix(name, "RLIMIT_"))
	if n := wordNumber(rlimits, short); n > 0 {
		return int(n) - 1, nil
	}
	return 0, badLimit(name, errors.New("there is no such limit"))
}

// RlimitName is the name of a resource as Docker writes it.
func RlimitName(resource int) string {
	words := strings.Fields(rlimits)
	if resource < 0 || resource >= len(words) {
		return strconv.Itoa(resource)
	}
	return words[resource]
}

func badLimit(s string, err error) error {
	return &fault.Error{Op: "set limit", On: s, Kind: fault.Invalid, Err: err,
		Hint: "want NAME=SOFT[:HARD], such as nofile=1024:2048; -1 or unlimited is no limit; names: " + strings.TrimSpace(rlimits)}
}

// ParseRlimit reads Docker's --ulimit: NAME=SOFT[:HARD]. Without HARD both are
// SOFT; -1 and "unlimited" are no limit. Errors are fault.Invalid.
func ParseRlimit(s string) (Rlimit, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return Rlimit{}, badLimit(s, errors.New(`it has no "="`))
	}
	resource, err := RlimitNumber(name)
	if err != nil || strings.HasPrefix(name, "RLIMIT_") {
		return Rlimit{}, badLimit(s, fmt.Errorf("there is no limit %q", name))
	}
	soft, hard, two := strings.Cut(value, ":")
	l := Rlimit{Resource: resource, Name: RlimitName(resource)}
	if l.Soft, err = limit(soft); err != nil {
		return Rlimit{}, badLimit(s, err)
	}
	if l.Hard = l.Soft; two {
		if l.Hard, err = limit(hard); err != nil {
			return Rlimit{}, badLimit(s, err)
		}
	}
	if l.Soft > l.Hard {
		return Rlimit{}, badLimit(s, errors.New("the soft limit must not be above the hard limit"))
	}
	return l, nil
}

func limit(s string) (uint64, error) {
	if s == "-1" || s == "unlimited" {
		return Infinity, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// String is l as ParseRlimit reads it.
func (l Rlimit) String() string { return l.Name + "=" + amount(l.Soft) + ":" + amount(l.Hard) }

func amount(n uint64) string {
	if n == Infinity {
		return "-1"
	}
	return strconv.FormatUint(n, 10)
}
