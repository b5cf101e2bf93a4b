package host

import (
	"errors"
	"testing"

	"kiste/fault"
)

func TestMessageOf(t *testing.T) {
	for record, want := range map[string]string{
		"5,2874,14218692189,-;audit: type=1326; x": "audit: type=1326; x",
		"6,1,2,-;text\n SUBSYSTEM=net\n":           "text",
		"":                                         "", "no record": "",
	} {
		if got := messageOf(record); got != want {
			t.Errorf("%q: got %q; want %q", record, got, want)
		}
	}
}

// The kernel's log is read to its end, and nobody waits for more.
func TestKernelLogEnds(t *testing.T) {
	n := 0
	if err := KernelLog(func(string) { n++ }); err != nil && !errors.Is(err, fault.Denied) && !errors.Is(err, fault.NotFound) {
		t.Errorf("after %d messages: %v", n, err)
	}
}
