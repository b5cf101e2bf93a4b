package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
)

// checkTime looks at the offsets of the clocks.
func (c *compiler) checkTime() error {
	no := func(format string, args ...any) error {
		return refused("linux.timeOffsets", fault.Invalid, format, args...)
	}
	i := slices.IndexFunc(c.linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.TimeNamespace })
	switch {
	case len(c.linux.TimeOffsets) == 0:
		return nil
	case i < 0:
		return no("time namespace offsets specified, but time namespace isn't enabled in the config")
	case c.linux.Namespaces[i].Path != "":
		return no("time namespace enabled, but both namespace path and time offsets specified -- you may only provide one")
	}
	for _, clock := range slices.Sorted(maps.Keys(c.linux.TimeOffsets)) {
		switch {
		case clock != "monotonic" && clock != "boottime":
			return no("there is no offset of the clock %q", clock)
		case c.linux.TimeOffsets[clock].Nanosecs > 999_999_999:
			return no("%d nanoseconds are more than a second", c.linux.TimeOffsets[clock].Nanosecs)
		}
	}
	return nil
}

// newTime makes the time namespace. A process enters it that is born there, so
// the child forks once more later; until then the offsets can be set. That is
// done before the process is undumpable, which takes /proc/self away from it.
// The mounts are the host's still. See time_namespaces(7).
func (c *compiler) newTime() {
	if !c.fresh["time"] {
		return
	}
	calls := []Call{c.call("unshare", unix.SYS_UNSHARE, named(unix.CLONE_NEWTIME, "CLONE_NEWTIME"))}
	text := ""
	for _, clock := range slices.Sorted(maps.Keys(c.linux.TimeOffsets)) {
		o := c.linux.TimeOffsets[clock]
		text += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	if text != "" {
		fd := c.slot("timens_offsets")
		calls = append(calls, c.open("/proc/self/timens_offsets", unix.O_WRONLY|unix.O_CLOEXEC, 0, "O_WRONLY|O_CLOEXEC").to(fd), c.write(fd, text))
	}
	c.child("make the time namespace", "linux.timeOffsets", calls...)
}
