package sys

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// present is how much of segments this process has in memory, in bytes, as its page
// tables say: /proc/PID/status is inexact before Linux 6.2.
func present(t *testing.T, all []segment) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	within := false
	for line := range strings.Lines(string(b)) {
		var from, to uintptr
		var size int
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err == nil {
			within = slices.ContainsFunc(all, func(s segment) bool { return from < s.begin+s.length && s.begin < to })
		} else if _, err := fmt.Sscanf(line, "Rss: %d kB", &size); err == nil && within {
			n += size << 10
		}
	}
	return n
}

// sum reads all bytes of a segment.
func (s segment) sum() (n uint64) {
	at := s.begin
	for _, b := range unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), s.length) {
		n = n*31 + uint64(b)
	}
	return n
}

func TestTheProgramIsReleasedAndComesBack(t *testing.T) {
	all := readOnlySegments()
	if len(all) == 0 {
		t.Fatal("no segments were found")
	}
	total, before := 0, []uint64{}
	for _, s := range all {
		total += int(s.length)
		before = append(before, s.sum())
	}
	had := present(t, all)
	if had < total {
		t.Fatalf("%d bytes of files are in memory after all %d of the program were read", had, total)
	}
	ReleaseProgram()
	if has := present(t, all); had-has < total/4 { // to ask needs a good part of it
		t.Errorf("%d bytes were in memory and %d are, want at least a quarter of %d less", had, has, total)
	}
	for i, s := range all {
		if s.sum() != before[i] {
			t.Errorf("segment %d has changed", i)
		}
	}
}

// Where a program was written at once, the page cache may have two megabytes of it
// as one page: what is needed again must not bring all of that back.
func TestLittleComesBackOfAProgramInLargePages(t *testing.T) {
	if os.Getenv("KISTE_TEST_RELEASED") != "" {
		ReleaseProgram()
		fmt.Print(present(t, []segment{{readOnlySegments()[0].begin, large}}))
		os.Exit(0)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/program"
	if err := os.WriteFile(file, self, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(file, "-test.run", "^"+t.Name()+"$")
	c.Env = append(os.Environ(), "KISTE_TEST_RELEASED=1")
	out, err := c.Output()
	n, _ := strconv.Atoi(string(out))
	if err != nil || n <= 0 || n > large-large/8 {
		t.Errorf("%q of the program's first two megabytes are back at once, %v; want an eighth less", out, err)
	}
}

// large is as much as the page cache has as one page at most, in bytes.
const large = 2 << 20

// Nothing that can be written to may be thrown away.
func TestOnlyWhatCannotBeWrittenIsReleased(t *testing.T) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range readOnlySegments() {
		for line := range strings.Lines(string(maps)) {
			var from, to uintptr
			var rights string
			if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err != nil {
				t.Fatal(err)
			}
			if from < s.begin+s.length && s.begin < to && strings.Contains(rights, "w") {
				t.Errorf("%+v is in %s", s, line)
			}
		}
	}
}
