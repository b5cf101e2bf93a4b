package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/namespace"
	"kiste/kernel/privilege"
)

// Facts finds out what package plan must know of this host and this process,
// but for the container's groups, and what is mounted as cgroups: that is the
// caller's, who has made the groups' steps from it.
func Facts(layout cgroup.Layout) plan.Facts {
	held := privilege.Holder()
	return plan.Facts{
		Host: held != nil && held(1<<unix.CAP_SYS_ADMIN), Inner: host.InUserns(),
		Cgroup: layout, Landlock: privilege.LandlockABI, LastCap: privilege.LastCap(), Held: held,
		AppArmor: host.AppArmor.Have, Profile: hasProfile, SELinux: host.SELinux.Have,
		Kind: kind, Own: ownNamespace, Limit: ownLimit,
	}
}

// hasProfile asks AppArmor what a profile allows. Where there is none its answer
// is ENOENT: aa_query_label(2). Who may not ask does not know.
func hasProfile(name string) bool {
	const perms = "\x02" // of a file
	var p *fs.PathError
	err := sys.WriteKnob("/sys/kernel/security/apparmor/.access", "label\x00"+name+"\x00"+perms)
	return !errors.As(err, &p) || p.Op != "write" || p.Err != syscall.ENOENT
}

func kind(path string) string {
	there, dir := sys.Look(path)
	switch {
	case !there:
		return ""
	case dir:
		return "dir"
	}
	return "file"
}

func ownLimit(resource int) (soft, hard uint64) {
	soft, hard, _ = sys.Getrlimit(resource)
	return soft, hard
}

// ownNamespace reports whether the namespace at path is one of this process's.
func ownNamespace(path string) bool {
	device, inode, err := sys.InodeOf(path)
	if err != nil {
		return false
	}
	for _, k := range []string{"net", "ipc", "uts", "pid", "mnt", "user", "cgroup", "time"} {
		if d, i, err := sys.InodeOf("/proc/self/ns/" + k); err == nil && d == device && i == inode {
			return true
		}
	}
	return false
}

// Streams tells which of files, the program's standard streams, may be given to
// its user: all but devices, of which other programs have the same. Nil is this
// process's own.
func Streams(files [3]*os.File) (give [3]bool) {
	for i, f := range files {
		fd := i
		if f != nil {
			fd = int(f.Fd())
		}
		st, err := sys.StatAt(fd, "")
		kind := st.Mode & unix.S_IFMT
		give[i] = err == nil && kind != unix.S_IFCHR && kind != unix.S_IFBLK
	}
	return give
}

// JoinedMaps are the maps of the user namespace at path, as this process sees
// them. Nobody tells but a process that is in it, so one goes there.
func JoinedMaps(path string) (uids, gids []specs.LinuxIDMapping, err error) {
	pid := os.Getpid()
	if !ownNamespace(path) {
		child, err := visit(path)
		if err != nil {
			return nil, nil, &fault.Error{Op: "read the id maps of user namespace", On: path, Err: err}
		}
		defer end(child)
		pid = child.PID
	}
	u, g, err := IDMaps(pid)
	return specMaps(u), specMaps(g), err
}

func specMaps(in []plan.IDMap) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(in))
	for i, m := range in {
		out[i] = specs.LinuxIDMapping{ContainerID: m.Inside, HostID: m.Outside, Size: m.Size}
	}
	return out
}

// visit gives a child that is in the user namespace at path, and waits.
func visit(path string) (*sys.Child, error) {
	fd, err := sys.OpenFile(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer sys.Close(fd)
	var sock int32
	child, err := sys.StartChild([]sys.ChildCall{
		{Nr: unix.SYS_SETNS, Args: [6]sys.ChildArg{sys.Number(fd), sys.Number(unix.CLONE_NEWUSER)}},
		{Nr: unix.SYS_WRITE, Args: [6]sys.ChildArg{{Slot: &sock}, sys.BytesOf("x"), sys.Number(1)}},
		sys.NewInbox(0).Receive(&sock),
	}, sys.ChildOptions{Sock: &sock})
	if err != nil {
		return nil, err
	}
	if _, _, err := child.Receive(); err != nil {
		end(child)
		return nil, err
	}
	return child, nil
}

// end lets a child that waits for a message go, and reaps it.
func end(child *sys.Child) {
	child.HangUp()
	_, _ = child.Wait()
	child.Close()
}

// usernsWith makes a user namespace with maps of its own, for a mount that is
// shifted by them: a descriptor, the caller's to close.
func usernsWith(uids, gids []plan.IDMap) (int, error) {
	var sock int32
	child, err := sys.StartChild([]sys.ChildCall{sys.NewInbox(0).Receive(&sock)}, sys.ChildOptions{Flags: unix.CLONE_NEWUSER, Sock: &sock})
	if err != nil {
		return -1, err
	}
	defer end(child)
	if err := namespace.WriteMaps(child.PID, idMaps(uids), idMaps(gids)); err != nil {
		return -1, err
	}
	return sys.OpenFile(fmt.Sprintf("/proc/%d/ns/user", child.PID), unix.O_RDONLY)
}
