package engine

import (
	"errors"
	"fmt"
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
		return p.ownInside(source, m.Subpath, uid, gid)
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

// ownInside is own for an ordinary user: this program again, as root of a user
// namespace with the ids that the container has.
func (p *Prepared) ownInside(source, below string, uid, gid uint32) error {
	user, err := namespace.ParseKind("user")
	if err != nil {
		return err
	}
	uids, gids := ownRanges()
	code, err := namespace.Run(namespace.Options{
		New: []namespace.Kind{user}, UIDs: namespace.RootMap(uint32(os.Geteuid()), uids), GIDs: namespace.RootMap(uint32(os.Getegid()), gids),
		KillChild: true, Args: []string{sys.SelfExe, OwnCommand, source, below, fmt.Sprint(uid), fmt.Sprint(gid)},
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

// own gives a tree to somebody: never through a link, nor into another mount.
func own(source, below string, uid, gid int) error {
	const path = 0x200000 // O_PATH
	fd, err := sys.OpenFile(source, path)
	if err != nil {
		return err
	}
	if below != "" {
		root := fd
		fd, err = sys.OpenIn(root, below, path, 0)
		sys.Close(root)
		if err != nil {
			return err
		}
	}
	defer sys.Close(fd)
	mount, err := sys.MountID(fd, "")
	if err != nil {
		return err
	}
	return ownTree(fd, mount, uid, gid, 0)
}

// deepestOwned bounds the directories that are open at once.
const deepestOwned = 2000

func ownTree(fd int, mount uint64, uid, gid, depth int) error {
	const path = 0x200000 | syscall.O_NOFOLLOW // O_PATH
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := sys.ChownAt(fd, "", uid, gid); err != nil {
			return err
		}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return nil
	}
	if depth > deepestOwned {
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
		child, err := sys.OpenAt(fd, name, path, 0)
		if err != nil {
			return ignoreMissing(err)
		}
		if id, e := sys.MountID(child, ""); e == nil && id == mount {
			err = ownTree(child, mount, uid, gid, depth+1)
		}
		sys.Close(child)
		if err != nil {
			return err
		}
	}
	return nil
}
