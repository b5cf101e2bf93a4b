package stack_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

var begun = regexp.MustCompile(`(?m)^init (\S+) @`)

// The stack is there before whatever grows it: another order would only be
// slower, and nobody would notice.
func TestTheStackComesFirst(t *testing.T) {
	program := filepath.Join(t.TempDir(), "order")
	build := exec.Command("go", "build", "-o", program, "./testdata/order")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := exec.Command(program)
	run.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var order []string
	for _, m := range begun.FindAllStringSubmatch(string(out), -1) {
		order = append(order, m[1])
	}
	own := slices.Index(order, "kiste/internal/stack")
	for _, later := range []string{"internal/godebug", "syscall", "os", "time"} {
		if i := slices.Index(order, later); own < 0 || i < own {
			t.Errorf("%s begins before the stack: %q", later, order)
		}
	}
}
