package host

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
	"kiste/store"
)

// The powers. What the start of a container asks for is probed by one system
// call or one small file; only "kiste doctor" tries the rest.
var (
	Root      = Power{"root", "all of Kiste, for every user of this host", "run as root, with sudo for instance", func() bool { return os.Geteuid() == 0 }, &found{}}
	Userns    = Power{"userns", "user namespaces: root inside, nobody outside", "sysctl -w user.max_user_namespaces=28633", userns, &found{}}
	UsernsTry = Power{"userns-try", "a user namespace was really made, with its capabilities", "sysctl -w user.max_user_namespaces=28633 kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0; in a container, the outer engine must allow unshare(2)", usernsTry, &found{}}
	Subids    = Power{"subids", "a range of ids for an ordinary user's containers", "apt-get install uidmap, and usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER", subids, &found{}}
	TimeNS    = Power{"timens", "time namespaces: clocks of a container's own", "boot a kernel with CONFIG_TIME_NS", func() bool { return exists("/proc/self/ns/time") }, &found{}}

	CgroupV2    = Power{"cgroup2", "limits through the unified hierarchy alone", "boot with systemd.unified_cgroup_hierarchy=1", func() bool { return exists("/sys/fs/cgroup/cgroup.controllers") }, &found{}}
	CgroupV1    = Power{"cgroup1", "limits through version 1 hierarchies", "none needed: version 2 is better", func() bool { return exists("/sys/fs/cgroup/memory/cgroup.procs") }, &found{}}
	CgroupOwn   = Power{"cgroup-delegated", "limits: a cgroup in which we may make others", "be root, or systemd-run --user --scope -p Delegate=yes COMMAND", cgroupOwn, &found{}}
	Systemd     = Power{"systemd", "cgroups that systemd makes", "boot with systemd as init", func() bool { return exists("/run/systemd/system") }, &found{}}
	CgroupClone = Power{"clone-into-cgroup", "a process starts in its cgroup, with no moving", "boot with systemd.unified_cgroup_hierarchy=1", func() bool { return CgroupV2.Have() && Clone3.Have() }, &found{}}

	Openat2       = Power{"openat2", "paths in a container's tree are resolved safely", "boot Linux 5.14 or later; in a container, the outer engine must allow openat2(2)", sys.HasOpenat2, &found{}}
	MountSetattr  = Power{"mount-setattr", "read-only trees and id-mapped mounts", "boot Linux 5.14 or later; in a container, the outer engine must allow mount_setattr(2)", sys.HasMountSetattr, &found{}}
	Overlay       = Power{"overlay", "layers of images are stacked, not copied", "modprobe overlay", func() bool { return fileHasField("/proc/filesystems", "overlay") || sys.HasFilesystem("overlay") }, &found{}}
	OverlayUserns = Power{"overlay-userns", "the same for an ordinary user", "boot Linux 5.11 or later and allow user namespaces", func() bool { return Overlay.Have() && Kernel(5, 11) && Userns.Have() }, &found{}}
	Idmap         = Power{"idmap", "files on the store's file system show the owner they have on the host", "keep the store on ext4, xfs or btrfs: set KISTE_LIB; be root", func() bool { return MountSetattr.Have() && Root.Have() && idmapFS(storeDir()) }, &found{}}
	IdmapOverlay  = Power{"idmap-overlay", "id-mapped mounts as layers", "boot Linux 5.19 or later", func() bool { return Idmap.Have() && Kernel(5, 19) }, &found{}}
	OverlayFD     = Power{"overlay-fd", "layers by descriptor: no path can be exchanged", "boot Linux 6.13 or later", func() bool { return Overlay.Have() && Kernel(6, 13) }, &found{}}
	ErofsFile     = Power{"erofs-file", "images mounted from a file, with no loop device", "be root; boot Linux 6.12 or later; modprobe erofs", func() bool { return Kernel(6, 12) && sys.HasFilesystem("erofs") }, &found{}}

	Landlock      = Power{"landlock", "one more wall around files and ports", "boot with landlock in lsm=", landlock, &found{}}
	Seccomp       = Power{"seccomp", "system calls are filtered", "boot a kernel with CONFIG_SECCOMP_FILTER", func() bool { return sys.HasSeccompAction(unix.SECCOMP_RET_ERRNO) }, &found{}}
	SeccompNotify = Power{"seccomp-notify", "system calls are answered by a supervisor", "boot Linux 5.0 or later", func() bool { return sys.HasSeccompAction(unix.SECCOMP_RET_USER_NOTIF) }, &found{}}
	AppArmor      = Power{"apparmor", "profiles of AppArmor", "boot with apparmor=1, where wanted", func() bool { return fileHas("/sys/module/apparmor/parameters/enabled", "Y") }, &found{}}
	SELinux       = Power{"selinux", "labels of SELinux", "boot with selinux=1, where wanted", func() bool { return exists("/sys/fs/selinux/enforce") }, &found{}}

	Pidfd  = Power{"pidfd", "signals reach the right process", "boot Linux 5.14 or later; in a container, the outer engine must allow pidfd_open(2)", sys.HasPidfd, &found{}}
	Clone3 = Power{"clone3", "processes are made with all their namespaces at once", "boot Linux 5.3 or later; in a container, the outer engine must allow clone3(2)", sys.HasClone3, &found{}}

	KVM  = Power{"kvm", "virtual machines at the speed of this one", "load kvm_intel or kvm_amd, and join group kvm", func() bool { return sys.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil }, &found{}}
	CRIU = Power{"criu", "checkpoints", "install criu", func() bool { return program("criu") }, &found{}}

	NFT    = Power{"nft", "ports and address translation", "modprobe nf_tables", nft, &found{}}
	Bridge = Power{"bridge", "networks of containers", "modprobe bridge", func() bool { return exists("/sys/module/bridge") || module("bridge") }, &found{}}
	Pasta  = Power{"pasta", "an ordinary user's containers reach the network by a program that is made for it", "none needed: kiste has a stack of its own; or install passt, of 2024 or later", func() bool { return program("pasta") }, &found{}}
	Tun    = Power{"tun", "the same at all: an ordinary user makes tap devices", "modprobe tun; chmod 0666 /dev/net/tun", func() bool { return sys.Access("/dev/net/tun", unix.R_OK|unix.W_OK) == nil }, &found{}}
)

// A Group is some powers that belong together.
type Group struct {
	Name   string
	Powers []Power
}

// Groups returns the table in the order in which "kiste doctor" prints it.
func Groups() []Group {
	return []Group{
		{"Who one is", []Power{Root, Userns, UsernsTry, Subids, TimeNS}},
		{"Limits", []Power{CgroupV2, CgroupV1, CgroupOwn, CgroupClone, Systemd}},
		{"Files", []Power{Openat2, MountSetattr, Overlay, OverlayUserns, Idmap, IdmapOverlay, OverlayFD, ErofsFile}},
		{"Walls", []Power{Seccomp, SeccompNotify, Landlock, AppArmor, SELinux}},
		{"Processes", []Power{Pidfd, Clone3, KVM, CRIU}},
		{"Network", []Power{NFT, Bridge, Pasta, Tun}},
	}
}

// Powers returns the table without its groups.
func Powers() []Power {
	var all []Power
	for _, g := range Groups() {
		all = append(all, g.Powers...)
	}
	return all
}

// Kernel reports whether this kernel is at least major.minor.
func Kernel(major, minor int) bool {
	a, b := parseRelease(sys.Release())
	return a > major || a == major && b >= minor
}

// Release is the kernel's release: "6.12.1-amd64".
func Release() string { return sys.Release() }

func parseRelease(release string) (major, minor int) {
	f := strings.SplitN(release, ".", 3)
	if len(f) < 2 {
		return 0, 0
	}
	major, _ = strconv.Atoi(f[0])
	digits := strings.IndexFunc(f[1]+"x", func(r rune) bool { return r < '0' || r > '9' })
	minor, _ = strconv.Atoi(f[1][:digits])
	return major, minor
}

// userns asks the limits only: whether a seccomp filter or an LSM is in the way
// shows when one tries.
func userns() bool {
	fd, err := sys.OpenFile("/proc/sys/user/max_user_namespaces", unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer sys.Close(fd)
	// not through package os: each start pays for this
	b, err := sys.ReadAll(fd, 2)
	if err != nil || strings.TrimSpace(string(b)) == "0" {
		return false
	}
	return os.Geteuid() == 0 || !fileHas("/proc/sys/kernel/unprivileged_userns_clone", "0") && !fileHas("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")
}

// usernsTry makes a child in a user and mount namespace. There is nothing for
// it to execute, so it ends at once; where the namespaces were refused, the
// error is another.
func usernsTry() bool {
	_, err := os.StartProcess("/nonexistent", []string{"probe"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}})
	return errors.Is(err, syscall.ENOENT) && (os.Geteuid() == 0 || !fileHas("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"))
}

// subids: root needs no helper and takes what ranges it likes.
func subids() bool {
	id := strconv.Itoa(os.Geteuid())
	if id == "0" {
		return true
	}
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	return program("newuidmap") && program("newgidmap") && hasRange("/etc/subuid", name, id) && hasRange("/etc/subgid", name, id)
}

func hasRange(file, name, id string) bool {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		who, _, _ := strings.Cut(line, ":")
		if who == name || who == id {
			return true
		}
	}
	return false
}

// cgroupOwn looks whether the cgroup of this process can be written.
func cgroupOwn() bool {
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		dir := "/sys/fs/cgroup"
		switch {
		case f[1] == "" && CgroupV2.Have():
		case f[1] == "memory":
			dir += "/memory"
		default:
			continue
		}
		if sys.Access(filepath.Join(dir, f[2]), unix.W_OK) == nil && !readOnlyFS(dir) {
			return true
		}
	}
	return false
}

func readOnlyFS(dir string) bool {
	st, err := sys.Statfs(dir)
	return err != nil || st.Flags&unix.ST_RDONLY != 0
}

func landlock() bool {
	v, err := sys.LandlockVersion()
	return err == nil && v > 0
}

// idmapFS knows the file systems that can be mounted with other ids, by magic
// number, and since when: mount_setattr(2).
func idmapFS(dir string) bool {
	st, err := sys.Statfs(dir)
	if err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, 0x4d44 /* FAT */, unix.XFS_SUPER_MAGIC:
		return Kernel(5, 12)
	case unix.BTRFS_SUPER_MAGIC:
		return Kernel(5, 15)
	case unix.TMPFS_MAGIC:
		return Kernel(6, 3)
	case unix.F2FS_SUPER_MAGIC:
		return Kernel(5, 18)
	case unix.EROFS_SUPER_MAGIC_V1, unix.SQUASHFS_MAGIC:
		return Kernel(5, 19)
	}
	return false
}

// storeDir is where the store is, or the nearest directory above it.
func storeDir() string {
	dir := store.Locate().Lib
	for !exists(dir) && dir != "/" && dir != "." {
		dir = filepath.Dir(dir)
	}
	return dir
}

// nft: what is built into the kernel shows in its list of symbols only.
func nft() bool {
	return exists("/sys/module/nf_tables") || fileHas("/proc/kallsyms", " nf_tables_newrule") || module("nf_tables")
}

func program(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// module reports whether a kernel module is built in or could be loaded.
func module(name string) bool {
	dir := filepath.Join("/lib/modules", sys.Release())
	return fileHas(filepath.Join(dir, "modules.builtin"), "/"+name+".ko") || fileHas(filepath.Join(dir, "modules.dep"), "/"+name+".ko")
}

func fileHas(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(b), text)
}

// fileHasField reports whether text is one of the words of a file.
func fileHasField(path, text string) bool {
	b, _ := os.ReadFile(path)
	for _, f := range strings.Fields(string(b)) {
		if f == text {
			return true
		}
	}
	return false
}
