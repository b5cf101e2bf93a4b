package privilege

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// linearSteps is how many instructions a list of comparisons, one for each
// number from the smallest on as libseccomp makes it, executes for nr.
// libseccomp 2.6 was seen to take 44 for getpid with this profile.
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
	const around = 5 // load and check the architecture, load the number, check for x32; return
	return around + slices.Index(slices.Compact(numbers), nr) + 1
}

// The promise: no call takes more than a tenth of the instructions that the
// average call takes in a list, and getpid, which has a small number, a third
// of its own.
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
		if slices.Contains([]string{"socket", "clone", "personality"}, name) || linearSteps(spec, nr) == 5 {
			continue
		}
		sum, list, n = sum+steps(nr), list+linearSteps(spec, nr), n+1
		most = max(most, steps(nr))
	}
	getpid, _ := Syscall("amd64", "getpid")
	t.Logf("getpid: %d instructions, in a list %d; average %d, in a list %d; most %d; the program has %d",
		steps(getpid), linearSteps(spec, getpid), sum/n, list/n, most, len(f.Instructions))
	if most*10 > list/n || steps(getpid)*3 > linearSteps(spec, getpid) {
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
