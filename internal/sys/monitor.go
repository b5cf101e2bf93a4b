package sys

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// monitorSlack is how late the runtime's monitor may wake up, in nanoseconds.
const monitorSlack = 4_000_000

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
	fd, err := unix.Open("/proc/"+thread+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	if _, err := unix.Write(fd, strconv.AppendInt(nil, monitorSlack, 10)); err == nil {
		entered.slack = usual
	}
	unix.Close(fd)
}

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
