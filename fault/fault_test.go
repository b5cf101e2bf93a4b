package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"kiste/fault"
)

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want fault.Kind
	}{
		{"nil has none", nil, ""},
		{"a foreign error has none", errors.New("x"), ""},
		{"an errno has its own", &fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, fault.NotFound},
		{"the outermost wins", &fault.Error{Op: "a", Kind: fault.Invalid, Err: syscall.ENOENT}, fault.Invalid},
		{"an unset kind asks the cause", &fault.Error{Op: "a", Err: fmt.Errorf("b: %w", syscall.EPERM)}, fault.Denied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fault.KindOf(tt.err); got != tt.want {
				t.Errorf("KindOf(%v) = %q; want %q", tt.err, got, tt.want)
			}
			if tt.want != "" && tt.err != nil {
				if e := (&fault.Error{Op: "x", Err: tt.err}); !errors.Is(e, tt.want) {
					t.Errorf("errors.Is(%v, %q) = false", e, tt.want)
				}
			}
		})
	}
}

func ExampleError() {
	err := &fault.Error{Op: "mount", On: "/proc", Err: syscall.EPERM, Hint: "run as root"}
	fmt.Println("kiste: cannot", err)
	fmt.Println("hint:", fault.HintOf(err))
	// Output:
	// kiste: cannot mount "/proc": operation not permitted
	// hint: run as root
}

func TestKindAndHintAreFoundAmongJoinedErrors(t *testing.T) {
	full := &fault.Error{Op: "write", Err: syscall.ENOSPC, Hint: "make room"}
	err := &fault.Error{Op: "unpack", Err: errors.Join(errors.New("first"), fmt.Errorf("second: %w", full))}
	if fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) != "make room" || !errors.Is(err, fault.Unavailable) {
		t.Errorf("kind %q, hint %q", fault.KindOf(err), fault.HintOf(err))
	}
}
