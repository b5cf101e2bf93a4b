package layer

import (
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// Dress gives the directory name below dir the mode, owner and time of the one
// that it covers in the layers below.
func Dress(dir, name string, mode fs.FileMode, uid, gid int, modified time.Time) error {
	root, err := sys.OpenAt(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer sys.Close(root)
	fd, err := sys.OpenIn(root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if err := sys.ChownAt(fd, "", uid, gid); err != nil {
		return err
	}
	bits := uint32(mode.Perm())
	for _, b := range [...]struct {
		mode fs.FileMode
		unix uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if mode&b.mode != 0 {
			bits |= b.unix
		}
	}
	if err := sys.Fchmod(fd, bits); err != nil {
		return err
	}
	return sys.Utimens(fd, "", timespec(modified), timespec(modified))
}
