// Package cgroup limits what a group of processes may use: CPU time, memory,
// I/O, the number of processes, devices.
//
//	takes    Limits, and a path below the cgroup root
//	gives    Steps as data, and a Group: read usage, change, freeze, kill, remove
//	touches  files of cgroupfs; for devices on version 2 a small BPF program
//	state    the kernel's; a Group can be opened again by its path at any time
//
// A cgroup is a directory. Its files are the knobs: write "64M" to memory.max
// and the kernel refuses the 65th megabyte. This package knows the knobs'
// names, their units and the order in which they must be turned; it does not
// know what a container is.
//
// On the command line it is
//
//	kiste cgroup run --memory 64M --pids 32 -- make -j
//
// and in a shell, on a version 2 host,
//
//	mkdir /sys/fs/cgroup/kiste; echo +memory > /sys/fs/cgroup/cgroup.subtree_control
//	echo 64M > /sys/fs/cgroup/kiste/memory.max; echo $$ > /sys/fs/cgroup/kiste/cgroup.procs
//
// # Layouts
//
// Detect tells what is mounted. A controller is in one hierarchy only. On a
// pure version 2 host that is the unified one. On a hybrid host a group gets
// always a directory in the unified hierarchy, since cgroup.kill and
// cgroup.freeze work there without any controller, and one in a version 1
// hierarchy for each controller that a limit needs. On a version 1 host the
// freezer takes the unified hierarchy's place. The same Limits are translated
// for each, by the formulas of runc and crun; what a host cannot do is
// fault.Unsupported and never left out in silence.
//
// # Getting a process in
//
// Writing a pid to cgroup.procs takes the kernel's cgroup_threadgroup_rwsem
// for writing, which waits for an RCU grace period: 7 to 15 ms when nobody did
// so just before (30 to 50 µs when somebody did; mkdir 15 to 40 µs, rmdir
// 10 to 30 µs). Two ways avoid it: clone3(2) with CLONE_INTO_CGROUP and the
// directory that UnifiedDir names, and on version 1 a thread that writes "0"
// into the tasks files that Tasks names, for itself: before the fork, as Enter
// does, or in the child, which has one thread only. A thread that does so and
// then calls execve(2) takes the whole process along. Attach is for everything
// else.
//
// # Privileges
//
// Root, or a cgroup that was delegated to the user: see Delegated. Safe for
// concurrent use; two Groups of one path are the same cgroup.
package cgroup
