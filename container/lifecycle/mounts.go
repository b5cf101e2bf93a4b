package lifecycle

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/chroot"
)

// AddMounts mounts more in a container that is there, in their order. A bind's
// source is the host's, relative ones below the bundle; a destination that is
// missing is made. File systems that show the namespaces of who mounts them are
// fault.Unsupported: here these would be the host's. Needs CAP_SYS_ADMIN in the
// user namespaces of this process and of the container.
func (c *Container) AddMounts(mounts []specs.Mount) error {
	uids, gids, err := c.maps()
	if err != nil {
		return err
	}
	var trees []int
	defer func() {
		for _, fd := range trees {
			sys.Close(fd)
		}
	}()
	for _, m := range mounts {
		fd, err := c.detached(m, uids, gids)
		if err != nil {
			return &fault.Error{Op: "add mount to container", On: m.Destination, Err: err}
		}
		trees = append(trees, fd)
	}
	return c.inMounts(func(root int) error {
		for i, m := range mounts {
			if err := attach(root, trees[i], m.Destination); err != nil {
				return &fault.Error{Op: "add mount to container", On: m.Destination, Err: err}
			}
		}
		return nil
	})
}

// RemoveMounts takes away what is mounted at the mounts' destinations, in their
// order. What is in use there stays so until it is closed.
func (c *Container) RemoveMounts(mounts []specs.Mount) error {
	return c.inMounts(func(root int) error {
		for _, m := range mounts {
			if err := detach(root, m.Destination); err != nil {
				return &fault.Error{Op: "remove mount from container", On: m.Destination, Err: err}
			}
		}
		return nil
	})
}

// namespaced are the types of file systems that show a namespace of who mounts
// them.
var namespaced = []string{"proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts"}

// detached makes a mount that can be attached in the container.
func (c *Container) detached(m specs.Mount, uids, gids []plan.IDMap) (int, error) {
	if !path.IsAbs(m.Destination) {
		return -1, &fault.Error{Op: "use destination", On: m.Destination, Kind: fault.Invalid, Err: errors.New("want a path from / on")}
	}
	p, err := chroot.ParseOptions(m.Options)
	if err != nil {
		return -1, err
	}
	source, options := m.Source, m.Options
	switch bind := p.Bind || m.Type == "bind"; {
	case bind && !filepath.IsAbs(source):
		source = filepath.Join(c.doc.Bundle, source)
	case !bind && slices.Contains(namespaced, m.Type):
		return -1, &fault.Error{Op: "mount", On: m.Type, Kind: fault.Unsupported, Err: errors.New("it would show the host's"), Hint: "bind one of the container's"}
	case !bind && m.Type == "tmpfs":
		options = slices.Concat(owner("uid", uids), owner("gid", gids), options)
	}
	return chroot.Mount{Type: m.Type, Source: source, Options: options}.Detached(nil)
}

// owner makes the container's root the owner of a new file system.
func owner(name string, ids []plan.IDMap) []string {
	for _, m := range ids {
		if m.Inside == 0 && m.Outside != 0 {
			return []string{name + "=" + strconv.FormatUint(uint64(m.Outside), 10)}
		}
	}
	return nil
}

// maps are those of the container's user namespace.
func (c *Container) maps() (uids, gids []plan.IDMap, err error) {
	if !c.doc.process().Alive() {
		return nil, nil, &fault.Error{Op: "change mounts of container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New("container not running")}
	}
	return process.IDMaps(c.doc.PID)
}

// inMounts calls do in the container's mount namespace, with its root.
func (c *Container) inMounts(do func(root int) error) error {
	pidfd, err := c.doc.process().Open()
	if errors.Is(err, fault.NotFound) {
		return &fault.Error{Op: "change mounts of container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New("container not running")}
	}
	if err != nil {
		return err
	}
	defer sys.Close(pidfd)
	// Nobody in the container may look into this process.
	if _, err := sys.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	_, err = sys.OnOwnThread(func() (int, error) {
		if err := sys.Unshare(unix.CLONE_FS); err != nil {
			return 0, err
		}
		if err := sys.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
			return 0, &fault.Error{Op: "enter mounts of container", On: c.doc.ID, Err: err, Hint: "it needs root, or root of the user namespace around the container"}
		}
		root, err := sys.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return 0, err
		}
		defer sys.Close(root)
		return 0, do(root)
	})
	return err
}

// attach mounts the tree at destination below root, by descriptor.
func attach(root, tree int, destination string) error {
	st, err := sys.StatAt(tree, "")
	if err != nil {
		return err
	}
	target, err := find(root, destination, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer sys.Close(target)
	return sys.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// find opens path below root, and makes what is missing: directories, and for
// what is no directory an empty file at the end.
func find(root int, name string, dir bool) (int, error) {
	fd, err := sys.OpenIn(root, name, unix.O_PATH, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	parent, base := path.Split(strings.TrimRight(path.Clean(name), "/"))
	up, err := find(root, path.Clean("/"+parent), true)
	if err != nil {
		return -1, err
	}
	defer sys.Close(up)
	if dir {
		if err := sys.MkdirAt(up, base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return -1, err
		}
	} else {
		file, err := sys.OpenAt(up, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return -1, err
		}
		sys.Close(file)
	}
	return sys.OpenIn(root, name, unix.O_PATH, 0)
}

// detach takes away what is mounted on name below root. umount(2) takes a path:
// it is this thread's working directory, or a name in it.
func detach(root int, name string) error {
	target, err := sys.OpenIn(root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	at := "."
	if errors.Is(err, unix.ENOTDIR) {
		target, err = sys.OpenIn(root, path.Dir(path.Clean(name)), unix.O_PATH|unix.O_DIRECTORY, 0)
		at = path.Base(path.Clean(name))
	}
	if err != nil {
		return err
	}
	defer sys.Close(target)
	if err := sys.Fchdir(target); err != nil {
		return err
	}
	err = sys.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) {
		return &fault.Error{Op: "unmount", On: name, Kind: fault.NotFound, Err: errors.New("nothing is mounted there")}
	}
	return err
}
