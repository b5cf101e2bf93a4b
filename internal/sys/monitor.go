package sys

import (
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// How late the runtime's monitor may wake up, in nanoseconds: where goroutines wait
// for each other, and for root, who can change it later, until Parallel or Timely. Of
// twenty starts at once each is interrupted all the time: that the monitor sleeps
// longer then saves a third of their changes of threads.
const (
	monitorSlack = 4_000_000
	aloneSlack   = 20_000_000
)

// SlowMonitor lets the thread with which Go's runtime watches the others sleep
// for milliseconds (PR_SET_TIMERSLACK in prctl(2)). It looks every 20 µs
// while they are busy, which costs a command that is over in some
// milliseconds a tenth of its time. What it does, it does a little later then:
// hand on the processor of a thread that is blocked, stop a goroutine that has
// computed for 10 ms. Only root may; for others, and where /proc is not as it
// should be, nothing changes.
//
// Threads that the monitor makes are born with such timers: see Timely.
func SlowMonitor() {
	if entered.slack != 0 {
		return // it was born so: see early; or this has been called before
	}
	usual, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return
	}
	thread := secondThread()
	if thread == "" {
		return
	}
	if WriteKnob(slackFile(thread), strconv.Itoa(monitorSlack)) == nil {
		entered.slack = usual
	}
}

func slackFile(thread string) string { return "/proc/" + thread + "/timerslack_ns" }

// watchful has no thread sleep as long as aloneSlack any more. What the kernel
// refuses stays as it is.
var watchful = sync.OnceFunc(func() {
	if entered.monitor <= monitorSlack {
		return
	}
	for eachThread(func(tid int) {
		file := slackFile(strconv.Itoa(tid))
		text, err := ReadKnob(file, 32)
		now, failed := strconv.Atoi(strings.TrimSpace(text))
		if err == nil && failed == nil && now > monitorSlack {
			_ = WriteKnob(file, strconv.Itoa(monitorSlack))
		}
	}) {
		// Another was born meanwhile, perhaps of one that was still late.
	}
})

// secondThread is the id of the first thread that the runtime has started,
// which is the monitor: the next number that was free.
func secondThread() string {
	pid := unix.Getpid()
	for tid := pid + 1; tid < pid+near; tid++ {
		if isOurs(pid, tid) {
			return strconv.Itoa(tid)
		}
	}
	return ""
}
