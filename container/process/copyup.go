package process

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/internal/sys"
)

// maxDepth bounds the recursion into a directory of a hostile image.
const maxDepth = 200

// copyUp makes a tmpfs that has what the root has at the same place. The root
// may be hostile: every file is opened below the directory above it, and no
// link is followed but inside of the root.
func (r *run) copyUp(a *plan.Act) (int, error) {
	tmpfs, err := a.Mount.Detached(nil)
	if err != nil {
		return -1, err
	}
	if err := r.fill(tmpfs, a); err != nil {
		sys.Close(tmpfs)
		return -1, &fault.Error{Op: "copy into the tmpfs on", On: a.Mount.Target, Err: err}
	}
	return tmpfs, nil
}

func (r *run) fill(tmpfs int, a *plan.Act) error {
	to, err := sys.OpenAt(tmpfs, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer sys.Close(to)
	given := func(key string) bool {
		return slices.ContainsFunc(a.Mount.Options, func(o string) bool { return strings.HasPrefix(o, key+"=") })
	}
	uid, gid := -1, -1
	if !given("uid") {
		uid = int(plan.Outside(r.plan.UIDs, 0))
	}
	if !given("gid") {
		gid = int(plan.Outside(r.plan.GIDs, 0))
	}
	if err := sys.ChownAt(to, "", uid, gid); err != nil {
		return err
	}
	from, err := sys.OpenIn(r.root, a.Mount.Target, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	defer sys.Close(from)
	st, err := sys.StatAt(from, "")
	if err == nil && !given("mode") {
		err = sys.Fchmod(to, st.Mode&0o7777)
	}
	if err != nil {
		return err
	}
	return copyDir(from, to, 0)
}

func copyDir(from, to, depth int) error {
	if depth > maxDepth {
		return &fault.Error{Op: "copy directories", Kind: fault.Invalid, Err: errors.New("they are too deep")}
	}
	list, err := sys.OpenAt(from, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(list), "dir")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := copyFile(from, to, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyFile copies one file of any kind with its owner, mode and time. Sockets
// are left out: nobody listens on a copy.
func copyFile(from, to int, name string, depth int) error {
	st, err := sys.StatAt(from, name)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copySub(from, to, name, depth)
	case unix.S_IFREG:
		err = copyContent(from, to, name)
	case unix.S_IFLNK:
		target, failed := sys.ReadlinkAt(from, name)
		if failed != nil {
			return failed
		}
		err = sys.SymlinkAt(target, to, name)
	case unix.S_IFSOCK:
		return nil
	default:
		err = sys.MknodAt(to, name, st.Mode, st.Rdev)
	}
	if err == nil {
		err = sys.ChownAt(to, name, int(st.Uid), int(st.Gid))
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = sys.ChmodAt(to, name, st.Mode&0o7777)
	}
	if err == nil {
		err = sys.Utimens(to, name, st.Atim, st.Mtim)
	}
	return err
}

func copySub(from, to int, name string, depth int) error {
	if err := sys.MkdirAt(to, name, 0o700); err != nil {
		return err
	}
	a, err := sys.OpenAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sys.Close(a)
	b, err := sys.OpenAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sys.Close(b)
	return copyDir(a, b, depth+1)
}

func copyContent(from, to int, name string) error {
	a, err := sys.OpenAt(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(a), name)
	defer in.Close()
	b, err := sys.OpenAt(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(b), name)
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if caps, err := sys.GetXattrFD(a, "security.capability"); err == nil {
		return sys.SetXattr(to, name, "security.capability", caps)
	}
	return nil
}
