package process

import (
	"os"
	"testing"
	"time"
)

// A name may have what ends a name.
func TestUsageOfAStat(t *testing.T) {
	var u Usage
	u.addStat("7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 5 0 99 1 2")
	if u.CPU != 1240*time.Millisecond || u.Threads != 5 {
		t.Errorf("got %v and %d threads; want 1.24s and 5", u.CPU, u.Threads)
	}
	u = Usage{}
	for _, cut := range []string{"", "7 (x", "7 (x) S 1 2"} {
		if u.addStat(cut); u != (Usage{}) {
			t.Errorf("%q: got %+v; want nothing", cut, u)
		}
	}
}

// The kernel's files are as the manual says: this process has memory and
// threads.
func TestUsageOfThisProcess(t *testing.T) {
	u, err := UsageOf(os.Getpid())
	if err != nil || u.Memory < 1<<19 || u.Threads < 2 {
		t.Errorf("got %+v, %v; want at least half a megabyte and two threads", u, err)
	}
	if _, err := UsageOf(1 << 30); err == nil {
		t.Error("a process that is not there uses something")
	}
}
