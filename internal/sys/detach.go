package sys

import (
	"runtime"
	"syscall"
)

// Detach starts a program that nobody here waits for: in a session of its own,
// at /, with files as its descriptors (-1: none). In the cgroup of version 2 whose
// directory group is it is born; -1: in the caller's. It gives the pid. Package os
// would first make a child to see whether the kernel has pidfds: that costs as much
// as starting one.
func Detach(path string, argv, env []string, files []int, group int) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	inTime()
	attr := syscall.ProcAttr{Dir: "/", Env: env, Sys: &syscall.SysProcAttr{Setsid: true, UseCgroupFD: group >= 0, CgroupFD: max(group, 0)}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	pid, _, err = syscall.StartProcess(path, argv, &attr)
	return pid, onPath("execve", path, err)
}
