// Package namespace gives a process a view of its own of what it takes for
// the world: process numbers, mounts, network, names, users, clocks.
//
//	takes    kinds, id maps, targets (a pid, a pin's name, a file), a command
//	gives    a process in new or in existing namespaces; who is in which; pins
//	touches  clone, unshare, setns; /proc/PID/ns and id maps; bind mounts of pins
//	state    the kernel's; pins are files below the directory that Pins names
//
// A namespace is held by the processes in it, and by files that are bind
// mounts of /proc/PID/ns/KIND: such a file is a pin. On the command line it is
//
//	kiste namespace run --pid --mount --mount-proc -- ps
//
// and with util-linux
//
//	unshare --pid --fork --mount-proc ps; lsns; nsenter --target 4711 --net ip addr
//
// # Where a parent stays
//
// Net, mount, IPC, UTS and cgroup namespaces are made, or joined, by a thread
// that then calls execve(2): nobody stays behind. Three kinds need a child,
// and this process stays as its parent, hands it the signals and returns its
// code: pid and time, since a namespace of these begins with the next child
// (pid_namespaces(7), time_namespaces(7)), and user, since a process of many
// threads, which every Go program is, may not change it (unshare(2), setns(2)).
// The child is a plain fork that makes system calls from a prepared list and
// then execve(2): Go is not started a second time.
//
// # Privileges
//
// Every kind but user needs CAP_SYS_ADMIN; with a new user namespace none is
// needed, where the host lets ordinary users make one. Not safe for use from
// several goroutines at once: Run and Enter change the calling thread or
// replace the process.
package namespace
