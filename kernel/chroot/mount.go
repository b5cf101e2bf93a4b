package chroot

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Mount is one line of a mount table, as data: snapshot drivers make it,
// the plan lists it, a process does it.
type Mount struct {
	Type    string   // "overlay", "bind", "proc", "tmpfs", …
	Source  string   // a path for a bind, else a name that /proc/mounts shows
	Target  string   // inside the root
	Options []string // as in mount(8): "ro", "nosuid", "size=64m"

	// Of a bind only: the path below Source that is bound. It is looked up
	// with Source as root, since links in it may be hostile.
	Below string

	// Of an overlay only: absolute paths of its layers. Lower begins with
	// the topmost. An empty Upper makes the overlay read-only.
	Lower       []string
	Upper, Work string
}

func (m Mount) String() string {
	s := fmt.Sprintf("mount     %-8s on %-10s %s", m.Type, m.Target, strings.Join(m.Options, ","))
	return strings.TrimRight(s, " ")
}

// Do performs the mount below the root of the calling thread, in its mount
// namespace. It needs CAP_SYS_ADMIN in the user namespace that owns that.
func (m Mount) Do() error {
	root, err := sys.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return m.failed(err)
	}
	defer sys.Close(root)
	return m.DoIn(root)
}

// Undo takes the mount away; what cannot be is left.
func (m Mount) Undo() { _ = sys.Unmount(m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }

// DoIn performs the mount on Target below the directory root, an open
// descriptor. No symbolic link leads out of it, and what is found is mounted
// on by descriptor, so that nobody can exchange it meanwhile. Target must
// exist.
func (m Mount) DoIn(root int) error {
	target, err := sys.OpenIn(root, m.Target, unix.O_PATH, 0)
	if err != nil {
		return m.failed(err)
	}
	defer sys.Close(target)
	return m.on(target)
}

// on performs the mount on the open target.
func (m Mount) on(target int) error {
	p, err := ParseOptions(m.Options)
	if err != nil {
		return m.failed(err)
	}
	if p.IDMap != "" || p.Flags&unix.MS_REMOUNT != 0 {
		return &fault.Error{Op: "mount on", On: m.Target, Kind: fault.Unsupported,
			Err: errors.New("remount and idmap are not mounts of their own")}
	}
	tree, err := m.tree(p)
	if err != nil {
		return m.failed(err)
	}
	defer sys.Close(tree)
	if err := setAttrs(tree, p); err != nil {
		return m.failed(err)
	}
	if err := sys.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return m.failed(err)
	}
	return m.failed(propagateTree(tree, p)) // after: below a shared mount it became shared
}

func (m Mount) failed(err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Op: "mount on", On: m.Target, Err: err}
}

// tree makes the mount, attached to nothing.
func (m Mount) tree(p Parsed) (int, error) {
	if p.Bind || m.Type == "bind" {
		flags := uint(unix.OPEN_TREE_CLONE)
		if p.Rec {
			flags |= unix.AT_RECURSIVE
		}
		if m.Below != "" {
			return m.treeBelow(flags)
		}
		return sys.OpenTree(unix.AT_FDCWD, m.Source, flags)
	}
	fs, err := sys.Fsopen(m.Type)
	if err != nil {
		return -1, err
	}
	defer sys.Close(fs)
	if err := m.configure(fs, p); err != nil {
		return -1, err
	}
	return sys.Fsmount(fs, int(p.Set))
}

func (m Mount) treeBelow(flags uint) (int, error) {
	base, err := sys.OpenFile(m.Source, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer sys.Close(base)
	below, err := sys.OpenIn(base, m.Below, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer sys.Close(below)
	return sys.OpenTree(below, "", flags|unix.AT_EMPTY_PATH)
}

// configure tells the file system its options, one by one: neither commas nor
// colons need to be hidden, and there is no page to overflow.
func (m Mount) configure(fs int, p Parsed) error {
	type setting struct{ key, value string }
	var settings []setting
	if m.Source != "" {
		settings = append(settings, setting{"source", m.Source})
	}
	if err := m.stack(fs); err != nil {
		return err
	}
	if m.Upper != "" {
		settings = append(settings, setting{"upperdir", m.Upper}, setting{"workdir", m.Work})
	}
	if m.Type == "nfs4" { // by mount(2) it is the default, by fsconfig(2) it is not
		settings = append(settings, setting{"vers", "4"})
	}
	for _, s := range settings {
		if err := sys.FsconfigString(fs, s.key, s.value); err != nil {
			return err
		}
	}
	for _, word := range p.Data {
		if err := set(fs, word); err != nil {
			return err
		}
	}
	for _, name := range p.Super() {
		if err := sys.FsconfigFlag(fs, name); err != nil {
			return err
		}
	}
	return sys.FsconfigCreate(fs)
}

// stack names the lower layers of an overlay, one by one since Linux 6.5, else
// all in one value, which fsconfig(2) takes up to 255 bytes.
func (m Mount) stack(fs int) error {
	for i, layer := range m.Lower {
		err := sys.FsconfigString(fs, "lowerdir+", layer)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return sys.FsconfigString(fs, "lowerdir", joinLayers(m.Lower))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// joinLayers hides the colons of names, as overlayfs.rst wants it.
func joinLayers(layers []string) string {
	hidden := make([]string, len(layers))
	for i, l := range layers {
		hidden[i] = strings.ReplaceAll(strings.ReplaceAll(l, `\`, `\\`), ":", `\:`)
	}
	return strings.Join(hidden, ":")
}

func set(fs int, word string) error {
	if key, value, ok := strings.Cut(word, "="); ok {
		return sys.FsconfigString(fs, key, value)
	}
	return sys.FsconfigFlag(fs, word)
}

func setAttrs(tree int, p Parsed) error {
	for _, a := range []struct {
		set, clear uint64
		flags      uint
	}{
		{p.RecSet, p.RecClear, unix.AT_RECURSIVE},
		{p.Set, p.Clear, 0},
	} {
		if a.set|a.clear == 0 {
			continue
		}
		attr := unix.MountAttr{Attr_set: a.set, Attr_clr: a.clear}
		if err := sys.MountSetattr(tree, "", a.flags|unix.AT_EMPTY_PATH, &attr); err != nil {
			return err
		}
	}
	return nil
}

func propagateTree(tree int, p Parsed) error {
	for _, kind := range p.Propagation {
		flags := uint(unix.AT_EMPTY_PATH)
		if kind&unix.MS_REC != 0 {
			flags |= unix.AT_RECURSIVE
		}
		if err := sys.MountSetattr(tree, "", flags, &unix.MountAttr{Propagation: kind &^ unix.MS_REC}); err != nil {
			return err
		}
	}
	return nil
}
