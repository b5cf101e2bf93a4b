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
	Root      = power("root", "all of Kiste, for every user of this host", func() bool { return os.Geteuid() == 0 }, "run as root, with sudo for instance")
	Userns    = power("userns", "user namespaces: root inside, nobody outside", userns, "sysctl -w user.max_user_namespaces=28633")
	UsernsTry = power("userns-try", "a user namespace was really made, with its capabilities", usernsTry, "sysctl -w user.max_user_namespaces=28633 kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0; in a container, the outer engine must allow unshare(2)")
	Subids    = power("subids", "a range of ids for an ordinary user's containers", subids, "apt-get install uidmap, and usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER")
	TimeNS    = power("timens", "time namespaces: clocks of a container's own", func() bool { return exists("/proc/self/ns/time") }, "boot a kernel with CONFIG_TIME_NS")

	CgroupV2    = power("cgroup2", "limits through the unified hierarchy alone", func() bool { return exists("/sys/fs/cgroup/cgroup.controllers") }, "boot with systemd.unified_cgroup_hierarchy=1")
	CgroupV1    = power("cgroup1", "limits through version 1 hierarchies", func() bool { return exists("/sys/fs/cgroup/memory/cgroup.procs") }, "none needed: version 2 is better")
	CgroupOwn   = power("cgroup-delegated", "limits: a cgroup in which we may make others", cgroupOwn, "be root, or systemd-run --user --scope -p Delegate=yes COMMAND")
	Systemd     = power("systemd", "cgroups that systemd makes", func() bool { return exists("/run/systemd/system") }, "boot with systemd as init")
	CgroupClone = power("clone-into-cgroup", "a process starts in its cgroup, with no moving", func() bool { return CgroupV2.Have() && Clone3.Have() }, "boot with systemd.unified_cgroup_hierarchy=1")

	Openat2       = power("openat2", "paths in a container's tree are resolved safely", sys.HasOpenat2, "boot Linux 5.14 or later; in a container, the outer engine must allow openat2(2)")
	MountSetattr  = power("mount-setattr", "read-only trees and id-mapped mounts", sys.HasMountSetattr, "boot Linux 5.14 or later; in a container, the outer engine must allow mount_setattr(2)")
	Overlay       = power("overlay", "layers of images are stacked, not copied", func() bool { return fileHasField("/proc/filesystems", "overlay") || sys.HasFilesystem("overlay") }, "modprobe overlay")
	OverlayUserns = power("overlay-userns", "the same for an ordinary user", func() bool { return Overlay.Have() && Kernel(5, 11) && Userns.Have() }, "boot Linux 5.11 or later and allow user namespaces")
	Idmap         = power("idmap", "files on the store's file system show the owner they have on the host", func() bool { return MountSetattr.Have() && Root.Have() && idmapFS(storeDir()) }, "keep the store on ext4, xfs or btrfs: set KISTE_LIB; be root")
	IdmapOverlay  = power("idmap-overlay", "id-mapped mounts as layers", func() bool { return Idmap.Have() && Kernel(5, 19) }, "boot Linux 5.19 or later")
	OverlayFD     = power("overlay-fd", "layers by descriptor: no path can be exchanged", func() bool { return Overlay.Have() && Kernel(6, 13) }, "boot Linux 6.13 or later")
	ErofsFile     = power("erofs-file", "images mounted from a file, with no loop device", func() bool { return Kernel(6, 12) && sys.HasFilesystem("erofs") }, "be root; boot Linux 6.12 or later; modprobe erofs")

	Landlock      = power("landlock", "one more wall around files and ports", landlock, "boot with landlock in lsm=")
	Seccomp       = power("seccomp", "system calls are filtered", func() bool { return sys.HasSeccompAction(unix.SECCOMP_RET_ERRNO) }, "boot a kernel with CONFIG_SECCOMP_FILTER")
	SeccompNotify = power("seccomp-notify", "system calls are answered by a supervisor", func() bool { return sys.HasSeccompAction(unix.SECCOMP_RET_USER_NOTIF) }, "boot Linux 5.0 or later")
	AppArmor      = power("apparmor", "profiles of AppArmor", func() bool { return fileHas("/sys/module/apparmor/parameters/enabled", "Y") }, "boot with apparmor=1, where wanted")
	SELinux       = power("selinux", "labels of SELinux", func() bool { return exists("/sys/fs/selinux/enforce") }, "boot with selinux=1, where wanted")

	Pidfd  = power("pidfd", "signals reach the right process", sys.HasPidfd, "boot Linux 5.14 or later; in a container, the outer engine must allow pidfd_open(2)")
	Clone3 = power("clone3", "processes are made with all their namespaces at once", sys.HasClone3, "boot Linux 5.3 or later; in a container, the outer engine must allow clone3(2)")

	KVM  = power("kvm", "virtual machines at the speed of this one", func() bool { return sys.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil }, "load kvm_intel or kvm_amd, and join group kvm")
	CRIU = power("criu", "checkpoints", program("criu"), "install criu")

	NFT    = power("nft", "ports and address translation", nft, "modprobe nf_tables")
	Bridge = power("bridge", "networks of containers", func() bool { return exists("/sys/module/bridge") || module("bridge") }, "modprobe bridge")
	Pasta  = power("pasta", "an ordinary user's containers reach the network by a program that is made for it", program("pasta"), "none needed: kiste has a stack of its own; or install passt, of 2024 or later")
	Tun    = power("tun", "the same at all: an ordinary user makes tap devices", func() bool { return sys.Access("/dev/net/tun", unix.R_OK|unix.W_OK) == nil }, "modprobe tun; chmod 0666 /dev/net/tun")
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
	return program("newuidmap")() && program("newgidmap")() && hasRange("/etc/subuid", name, id) && hasRange("/etc/subgid", name, id)
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

func program(name string) func() bool {
	return func() bool {
		_, err := exec.LookPath(name)
		return err == nil
	}
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
