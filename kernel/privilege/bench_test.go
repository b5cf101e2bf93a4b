package privilege

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// linearSteps is how many instructions a list of comparisons, one for each
// number in order as libseccomp makes it, executes before it finds nr.
func linearSteps(spec *specs.LinuxSeccomp, nr uint32) int {
	c := compiler{}
	if c.read(spec, "amd64") != nil {
		return 0
	}
	for i, entry := range spec.Syscalls {
		if c.readRule(i, entry) != nil {
			return 0
		}
	}
	var numbers []uint32
	for _, call := range c.calls[0] {
		numbers = append(numbers, call.nr())
	}
	slices.Sort(numbers)
	const before, after = 4, 1 // load and check architecture, load number, check x32; return
	// libseccomp begins with the highest number.
	return before + len(slices.Compact(numbers)) - slices.Index(slices.Compact(numbers), nr) + after
}

// The promise: no call takes more than a fifth of the instructions that the
// average call takes in a list, and getpid not a tenth of its own.
func TestSearchingBeatsAList(t *testing.T) {
	spec, err := DefaultProfile(DefaultCaps, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Compile(spec, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	steps := func(nr uint32) int {
		_, n, err := run(f.Instructions, seccompData{nr: nr, arch: 0xc000003e}, false)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	most, sum, list, n := 0, 0, 0, 0
	for line := range strings.Lines(numbersAMD64) {
		name, _, _ := strings.Cut(line, " ")
		nr, _ := Syscall("amd64", name)
		if slices.Contains([]string{"socket", "clone", "personality"}, name) || linearSteps(spec, nr) == 0 {
			continue
		}
		sum, list, n = sum+steps(nr), list+linearSteps(spec, nr), n+1
		most = max(most, steps(nr))
	}
	getpid, _ := Syscall("amd64", "getpid")
	t.Logf("getpid: %d instructions, in a list %d; average %d, in a list %d; most %d; the program has %d",
		steps(getpid), linearSteps(spec, getpid), sum/n, list/n, most, len(f.Instructions))
	if most*5 > list/n || steps(getpid)*10 > linearSteps(spec, getpid) {
		t.Error("the search is not what it was")
	}
}

func BenchmarkDefaultFilter(b *testing.B) {
	for _, bb := range []struct {
		name string
		caps Caps
	}{{"precompiled", DefaultCaps}, {"compiled", AllCaps()}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DefaultFilter(bb.caps); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	spec, err := DefaultProfile(DefaultCaps, "amd64")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(spec, "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}
