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

	"golang.org/x/sys/unix"
)

// present is how much of segments this process has in memory after do, in bytes, as
// its page tables say: /proc/PID/status is inexact before Linux 6.2. All that is
// needed to ask is there before, since it would bring back a good part of the program.
func present(t *testing.T, all []segment, do func()) (n int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, b, length := int(f.Fd()), make([]byte, 1<<20), 0
	do()
	for more := -1; more != 0; length += more {
		if more, err = unix.Read(fd, b[length:]); err != nil {
			t.Fatal(err)
		}
	}
	b = b[:length]
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
	had := present(t, all, func() {})
	if had < total {
		t.Fatalf("%d bytes of files are in memory after all %d of the program were read", had, total)
	}
	if has := present(t, all, ReleaseProgram); had-has < total/2 {
		t.Errorf("%d bytes were in memory and %d are, want at least half of %d less", had, has, total)
	}
	for i, s := range all {
		if s.sum() != before[i] {
			t.Errorf("segment %d has changed", i)
		}
	}
}

// Where a program was written at once, the page cache has up to two megabytes of it
// as one page: who needs a byte of each quarter of a megabyte must not get them all.
func TestLittleComesBackOfAProgramInLargePages(t *testing.T) {
	all, total := readOnlySegments(), 0
	for _, s := range all {
		total += int(s.length)
	}
	if os.Getenv("KISTE_TEST_RELEASED") != "" {
		fmt.Print(present(t, all, func() {
			ReleaseProgram()
			for _, s := range all {
				for at := uintptr(0); at < s.length; at += 256 << 10 {
					touched += segment{s.begin + at, 1}.sum()
				}
			}
		}))
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
	if err != nil || n <= 0 || n > total/2 {
		t.Errorf("%q of the program are back, %v; want at most half of %d", out, err, total)
	}
}

var touched uint64 // or nobody would read

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
