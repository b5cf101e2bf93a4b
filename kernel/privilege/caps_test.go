package privilege_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"kiste/kernel/privilege"
)

// The highest capability is the one that the kernel names.
func TestLastCap(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Skip(err)
	}
	if want := strings.TrimSpace(string(text)); strconv.Itoa(privilege.LastCap()) != want {
		t.Errorf("it is %d, want %s", privilege.LastCap(), want)
	}
}
