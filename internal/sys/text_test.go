package sys

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// fileMemory is how much of files this process has in memory, in bytes.
func fileMemory(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "RssFile: %d kB", &n); err == nil {
			return n << 10
		}
	}
	t.Fatal("/proc/self/status has no RssFile")
	return 0
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
	had := fileMemory(t)
	if had < total {
		t.Fatalf("%d bytes of files are in memory after all %d of the program were read", had, total)
	}
	ReleaseProgram()
	if has := fileMemory(t); had-has < total/2 {
		t.Errorf("%d bytes were in memory and %d are, want at least half of %d less", had, has, total)
	}
	for i, s := range all {
		if s.sum() != before[i] {
			t.Errorf("segment %d has changed", i)
		}
	}
}

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
