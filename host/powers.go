package host

import "os"

// The powers. Powers lists them in the order in which "kiste doctor" prints
// them.
var (
	Root     = power("root", "all of Kiste, for every user of this host", func() bool { return os.Geteuid() == 0 }, "run as root, with sudo for instance")
	CgroupV2 = power("cgroup2", "limits through the unified hierarchy alone", func() bool { return exists("/sys/fs/cgroup/cgroup.controllers") }, "boot with systemd.unified_cgroup_hierarchy=1")
	CgroupV1 = power("cgroup1", "limits through version 1 hierarchies", func() bool { return exists("/sys/fs/cgroup/memory/cgroup.procs") }, "none needed: version 2 is better")
	Userns   = power("userns", "user namespaces: root inside, nobody outside", func() bool { return exists("/proc/self/ns/user") }, "sysctl user.max_user_namespaces=28633")
)

// Powers returns the table in its order.
func Powers() []Power { return []Power{Root, CgroupV2, CgroupV1, Userns} }
