// Package verdict is what the benchmarks share: medians, verdicts, their exit code.
//
//	takes    measurements
//	gives    their median; a line that says whether a promise is kept
//	touches  standard output
//	state    none
//
// A promise compares what was measured in one run, so that it holds on any
// machine. It is for benchmarks alone.
package verdict

import (
	"cmp"
	"fmt"
	"os"
	"slices"
)

// Main is the end of a benchmark called name: its exit code, or 1 after an error,
// which it says.
func Main(name string, measure func() (code int, err error)) {
	code, err := measure()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		code = 1
	}
	os.Exit(code)
}

// Median is the value in the middle; zero of none.
func Median[T cmp.Ordered](all []T) (middle T) {
	if len(all) == 0 {
		return middle
	}
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// Print prints got, as format says, and whether it is at most what was promised:
// 0, or 1 for an exit code. Where most is 0 nothing was.
func Print(text string, got, most float64, format string) (code int) {
	word := "kept"
	switch {
	case most == 0:
		fmt.Printf("%-44s "+format+"\n", text, got)
		return 0
	case got > most:
		code, word = 1, "BROKEN"
	}
	fmt.Printf("%-44s "+format+"  at most "+format+"  %s\n", text, got, most, word)
	return code
}
