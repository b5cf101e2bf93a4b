package process

import (
	"strconv"
	"strings"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// Usage is what one process uses, for containers that no cgroup accounts for.
type Usage struct {
	CPU     time.Duration // with that of its children that have ended
	Memory  int64         // bytes that cannot be dropped; what it shares it has a part of
	Threads int64
	Read    int64 // bytes from disks
	Written int64
}

// tick is a clock tick of proc_pid_stat(5), the same on all that we run on.
const tick = time.Second / 100

// UsageOf reads what the process pid uses. One that is gone, or that belongs to
// somebody else, is fault.NotFound or fault.Denied. Source: proc_pid_stat(5),
// proc_pid_smaps(5), proc_pid_io(5).
func UsageOf(pid int) (u Usage, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	read := func(name string) string {
		text, bad := sys.ReadKnob(dir+"/"+name, 1<<16)
		if bad != nil && err == nil {
			err = &fault.Error{Op: "read", On: dir + "/" + name, Err: bad}
		}
		return text
	}
	u.addStat(read("stat"))
	maps := read("smaps_rollup")
	u.Memory = (fieldOf(maps, "Pss_Anon:") + fieldOf(maps, "Pss_Shmem:")) << 10
	io := read("io")
	u.Read, u.Written = fieldOf(io, "read_bytes:"), fieldOf(io, "write_bytes:")
	return u, err
}

// addStat takes the times and the number of threads: of the words after the
// name, which may have spaces and is in parentheses.
func (u *Usage) addStat(text string) {
	const userTime, childrensSystemTime, threads = 11, 14, 17
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) <= threads {
		return
	}
	for _, ticks := range f[userTime : childrensSystemTime+1] {
		n, _ := strconv.ParseInt(ticks, 10, 64)
		u.CPU += time.Duration(n) * tick
	}
	u.Threads, _ = strconv.ParseInt(f[threads], 10, 64)
}

// fieldOf is the first number after a word that begins a line; 0 where there is
// none.
func fieldOf(text, word string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == word {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
