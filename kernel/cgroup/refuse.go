package cgroup

import (
	"errors"
	"path"
	"strconv"
	"strings"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// refused is the error of a process that could not get into the group dir.
func refused(op, dir string, err error) error {
	e := denied(op, dir, err).(*fault.Error)
	switch {
	case errors.Is(err, syscall.ESRCH):
		e.Kind, e.Hint = fault.NotFound, "the process has ended"
	case errors.Is(err, syscall.ENODEV):
		e.Kind, e.Hint = fault.NotFound, "the group has been removed"
	case errors.Is(err, syscall.EBUSY):
		e.Hint = "the group hands controllers on, so processes belong into the groups below it"
	case errors.Is(err, syscall.EOPNOTSUPP):
		e.Kind, e.Err, e.Hint = fault.Unsupported, errText("it is "+kindOf(dir)), threadedHint
	case errors.Is(err, syscall.ENOSPC):
		e.Hint = "its cpuset has no CPUs or no memory nodes: write cpuset.cpus and cpuset.mems first"
	}
	return e
}

// Refused is the error of a clone3(2) with CLONE_INTO_CGROUP into the group dir
// that failed with err, and says what to do.
func Refused(dir string, err error) error { return refused("start a process in", dir, err) }

const threadedHint = "threaded groups have cpu, cpuset, pids and perf_event only, and no processes of other groups; see cgroup.type: take another group, or one whose parent has no processes"

// kindOf is the cgroup.type of the version 2 group dir: "domain", "threaded",
// "domain threaded" or "domain invalid". It is "domain" where there is none.
func kindOf(dir string) string {
	kind, err := sys.ReadKnob(dir+"/cgroup.type", 64)
	if err != nil {
		return "domain"
	}
	return strings.TrimSpace(kind)
}

// MakeThreaded makes the version 2 group dir a threaded one if err says that a
// process could not enter it because it is below a group with processes. It
// reports whether the process should try again. Controllers that account for
// whole processes have been refused before. As in runc.
func MakeThreaded(dir string, err error) bool {
	return errors.Is(err, syscall.EOPNOTSUPP) && kindOf(dir) == "domain invalid" && sys.WriteKnob(dir+"/cgroup.type", "threaded") == nil
}

// idle is an error where somebody is in the group dir of one hierarchy, or in
// a group below, or where it is frozen: who starts there would wait for ever.
func idle(dir string, v2 bool) error {
	conflict := func(why, hint string) error {
		return &fault.Error{Op: "use cgroup", On: dir, Kind: fault.Conflict, Err: errText(why), Hint: hint}
	}
	frozen, thawed := "freezer.state", "THAWED"
	if v2 {
		frozen, thawed = "cgroup.freeze", "0"
	}
	state, err := sys.ReadKnob(path.Join(dir, frozen), 64)
	if err == nil && strings.TrimSpace(state) != thawed {
		return conflict("it is frozen", `thaw it first: "kiste cgroup thaw", or write `+thawed+" to "+path.Join(dir, frozen))
	}
	pids, err := procsBelow(dir)
	switch {
	case err != nil:
		return denied("read", dir, err)
	case len(pids) > 0:
		return conflict("it is not empty: "+strconv.Itoa(len(pids))+" processes are in it, "+strconv.Itoa(pids[0])+" among them", "take another group, or end them first")
	}
	return nil
}

// usedMemory says what the version 1 group dir uses, for a limit that the
// kernel refused.
func usedMemory(dir string) string {
	usage, err1 := readNumber(dir, "memory.usage_in_bytes")
	peak, err2 := readNumber(dir, "memory.max_usage_in_bytes")
	if err1 != nil || err2 != nil {
		return ""
	}
	return " (current usage: " + strconv.FormatInt(usage, 10) + ", peak usage: " + strconv.FormatInt(peak, 10) + ")"
}
