// Unit runs the tests of every package, one package at a time: each checks that it
// leaves the host as it was, and must not see what another has just made.
//
//	go run ./test/unit [PACKAGE...]
//
// A test that fails is run once more, alone, for the machines that test are shared,
// and slow at times. If it passes then, the last lines name it: what is not steady is
// a bug, in the test or in Kiste, and its first output is there. It ends by a table
// of the tests that took longest.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// limit bounds a package. A second try is for what is quick, or may be slow once:
// where it would take longer than this in all, the first word counts.
const (
	limit       = 35 * time.Minute
	secondTries = 20 * time.Minute
)

// slowest is how many tests the table has.
const slowest = 20

func main() {
	packages := os.Args[1:]
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	r := report{out: os.Stdout}
	whole, err := tested(&r, packages...)
	if err == nil {
		whole, err = again(&r)
	}
	r.table(slowest)
	for _, line := range r.unsteady {
		fmt.Println("test/unit:", line)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "test/unit:", err)
	case whole:
		return
	}
	os.Exit(1)
}

// again runs once more what has failed, and reports whether all of it passes.
func again(r *report) (passed bool, err error) {
	failed := r.failures
	if len(failed) == 0 {
		return true, nil
	}
	var took time.Duration
	for _, f := range failed {
		if !f.again {
			return false, nil
		}
		took += f.took
	}
	if took > secondTries {
		fmt.Fprintf(r.out, "test/unit: what failed took %v: too long to try it again\n", took.Round(time.Second))
		return false, nil
	}
	for _, f := range failed {
		fmt.Fprintln(r.out, "test/unit: once more:", f)
		second := report{out: r.out}
		if passed, err := tested(&second, f.arguments()...); err != nil || !passed {
			return false, err
		}
	}
	for _, f := range failed {
		r.unsteady = append(r.unsteady, fmt.Sprint(unsteady, ": ", f))
	}
	return true, nil
}

// tested runs go test and reports whether all has passed.
func tested(r *report, arguments ...string) (passed bool, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json", "-p", "1", "-count=1", "-timeout", limit.String()}, arguments...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	err = r.read(events)
	_, _ = io.Copy(io.Discard, events)
	var status *exec.ExitError
	if ended := cmd.Wait(); ended != nil && !errors.As(ended, &status) {
		err = cmp.Or(err, ended)
	}
	return status == nil && err == nil, err
}

// table tells which tests took longest.
func (r *report) table(n int) {
	slices.SortFunc(r.took, func(a, b timed) int { return cmp.Compare(b.took, a.took) })
	fmt.Fprintln(r.out, "test/unit: what took longest:")
	for _, t := range r.took[:min(n, len(r.took))] {
		fmt.Fprintf(r.out, "%8.1f s  %s %s\n", t.took.Seconds(), t.pkg, t.test)
	}
}
