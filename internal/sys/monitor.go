package sys

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// monitorSlack is how late the runtime's monitor may wake up, in nanoseconds.
const monitorSlack = "4000000"

// SlowMonitor lets the thread with which Go's runtime watches the others sleep
// for milliseconds (PR_SET_TIMERSLACK in prctl(2)). It looks every 20 µs
// while they are busy, which costs a command that is over in some
// milliseconds a tenth of its time. What it does, it does a little later then:
// hand on the processor of a thread that is blocked, stop a goroutine that has
// computed for 10 ms. Only root may; for others, and where /proc is not as it
// should be, nothing changes.
func SlowMonitor() {
	thread := secondThread()
	if thread == "" {
		return
	}
	fd, err := unix.Open("/proc/"+thread+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(monitorSlack))
	unix.Close(fd)
}

// secondThread is the id of the first thread that the runtime has started,
// which is the monitor: threads are listed in the order of their birth.
func secondThread() string {
	fd, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var list [512]byte
	n, err := unix.Getdents(fd, list[:])
	if err != nil {
		return ""
	}
	threads := 0
	for at := 0; at < n; {
		entry := (*unix.Dirent)(unsafe.Pointer(&list[at]))
		name := unix.ByteSliceToString(list[at+int(unsafe.Offsetof(entry.Name)) : at+int(entry.Reclen)])
		if _, err := strconv.Atoi(name); err == nil {
			threads++
		}
		if threads == 2 {
			return name
		}
		at += int(entry.Reclen)
	}
	return ""
}
