package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"kiste/container/bundle"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/namespace"
)

// OwnCommand is the hidden command that calls Own.
const OwnCommand = "__own"

// ownSources gives what is bound with "U" to the user that the container runs as.
func (p *Prepared) ownSources() error {
	for _, m := range p.Wishes.Mounts {
		if !m.Own || p.o.DryRun {
			continue
		}
		source := p.Sources[m.Target]
		if source == "" {
			source = m.Source
		}
		if err := p.own(m, source); err != nil {
			return &fault.Error{Op: "give to the container's user", On: source, Err: err, Hint: "leave out the option U"}
		}
	}
	return nil
}

func (p *Prepared) own(m bundle.Mount, source string) error {
	user := p.Result.Spec.Process.User
	uid, gid := user.UID, user.GID
	if os.Geteuid() != 0 {
		return asMappedRoot(OwnCommand, source, m.Subpath, fmt.Sprint(uid), fmt.Sprint(gid))
	}
	if m.NoIDMap && p.hasUserNS() {
		outerUID, okUID := p.uids.ToOutside(uid)
		outerGID, okGID := p.gids.ToOutside(gid)
		if !okUID || !okGID {
			return errors.New("the user has no id outside of its user namespace")
		}
		uid, gid = outerUID, outerGID
	}
	return own(source, m.Subpath, int(uid), int(gid))
}

// asMappedRoot runs one of this program's hidden commands for an ordinary user as
// root of a user namespace with the ids that his containers have.
func asMappedRoot(args ...string) error {
	user, err := namespace.ParseKind("user")
	if err != nil {
		return err
	}
	uids, gids := ownRanges()
	code, err := namespace.Run(namespace.Options{
		New: []namespace.Kind{user}, UIDs: namespace.RootMap(uint32(os.Geteuid()), uids), GIDs: namespace.RootMap(uint32(os.Getegid()), gids),
		KillChild: true, Args: append([]string{sys.SelfExe}, args...),
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with code %d", code)
	}
	return err
}

// Own does what OwnCommand's arguments say.
func Own(args []string) error {
	if len(args) != 4 {
		return &fault.Error{Op: "change owner", Kind: fault.Invalid, Err: errors.New("want DIR BELOW UID GID")}
	}
	uid, err1 := strconv.ParseUint(args[2], 10, 32)
	gid, err2 := strconv.ParseUint(args[3], 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return own(args[0], args[1], int(uid), int(gid))
}

// own gives a tree to somebody.
func own(source, below string, uid, gid int) error {
	fd, err := openSource(source, below)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return eachBelow(fd, func(fd, ownUID, ownGID int) error {
		if ownUID == uid && ownGID == gid {
			return nil
		}
		return sys.ChownAt(fd, "", uid, gid)
	})
}

// openPath is O_PATH, which package syscall lacks.
const openPath = 0x200000

// openSource opens what is bound, or below it, with O_PATH.
func openSource(source, below string) (int, error) {
	fd, err := sys.OpenFile(source, openPath)
	if err != nil || below == "" {
		return fd, err
	}
	defer sys.Close(fd)
	return sys.OpenIn(fd, below, openPath, 0)
}

// eachBelow calls do with a descriptor, of O_PATH, of each file of a tree, and its
// owners, those of a directory before it: never through a link, nor into another mount.
func eachBelow(fd int, do func(fd, uid, gid int) error) error {
	mount, err := sys.MountID(fd, "")
	if err != nil {
		return err
	}
	return eachOf(fd, mount, 0, do)
}

// deepestTree bounds the directories that are open at once.
const deepestTree = 2000

func eachOf(fd int, mount uint64, depth int, do func(fd, uid, gid int) error) error {
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return do(fd, int(st.Uid), int(st.Gid))
	}
	if depth > deepestTree {
		return syscall.ENAMETOOLONG
	}
	dir, err := sys.OpenAt(fd, ".", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dir), "directory")
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		child, err := sys.OpenAt(fd, name, openPath|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) { // it is gone by now
			continue
		}
		if err != nil {
			return err
		}
		if id, e := sys.MountID(child, ""); e == nil && id == mount {
			err = eachOf(child, mount, depth+1, do)
		}
		sys.Close(child)
		if err != nil {
			return err
		}
	}
	return do(fd, int(st.Uid), int(st.Gid))
}
