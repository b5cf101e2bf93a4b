package chroot

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes are what mount options say, in the words of mount_setattr(2)
// and fsconfig(2).
type Attributes struct {
	Set, Clear       uint64 // unix.MOUNT_ATTR_ bits
	SetAll, ClearAll uint64 // the same for the whole tree: "rro", "rnosuid" …
	Propagation      uint64 // unix.MS_ bit; 0: as it comes
	PropagateAll     bool   // "rprivate" …
	Recursive        bool   // "rbind"
	IDMap, IDMapAll  bool   // "idmap", "ridmap"
	Data             []string
}

// An option is one row of the table: what it sets and clears of
// mount_setattr's attributes. With an r in front it is for the whole tree.
var options = []struct {
	name       string
	set, clear uint64
}{
	{"ro", unix.MOUNT_ATTR_RDONLY, 0},
	{"rw", 0, unix.MOUNT_ATTR_RDONLY},
	{"nosuid", unix.MOUNT_ATTR_NOSUID, 0},
	{"suid", 0, unix.MOUNT_ATTR_NOSUID},
	{"nodev", unix.MOUNT_ATTR_NODEV, 0},
	{"dev", 0, unix.MOUNT_ATTR_NODEV},
	{"noexec", unix.MOUNT_ATTR_NOEXEC, 0},
	{"exec", 0, unix.MOUNT_ATTR_NOEXEC},
	{"noatime", unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME},
	{"atime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	{"relatime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	{"norelatime", unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	{"strictatime", unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	{"nostrictatime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, 0},
	{"diratime", 0, unix.MOUNT_ATTR_NODIRATIME},
	{"nosymfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, 0},
	{"symfollow", 0, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = []struct {
	name string
	bit  uint64
}{
	{"private", unix.MS_PRIVATE}, {"shared", unix.MS_SHARED}, {"slave", unix.MS_SLAVE}, {"unbindable", unix.MS_UNBINDABLE},
}

// ParseOptions reads mount options as runtime-spec 1.3 lists them. What is
// none of them is data for the file system, as in mount(8). Later options win
// over earlier ones.
func ParseOptions(list []string) Attributes {
	var a Attributes
	for _, o := range list {
		if !a.take(o) {
			a.Data = append(a.Data, o)
		}
	}
	return a
}

func (a *Attributes) take(o string) bool {
	switch o {
	case "bind", "defaults", "":
		return true
	case "rbind":
		a.Recursive = true
		return true
	case "idmap":
		a.IDMap = true
		return true
	case "ridmap":
		a.IDMap, a.IDMapAll = true, true
		return true
	}
	return a.takeAttribute(o) || a.takePropagation(o)
}

func (a *Attributes) takeAttribute(o string) bool {
	for _, row := range options {
		switch {
		case o == row.name:
			a.Set, a.Clear = a.Set&^row.clear|row.set, a.Clear&^row.set|row.clear
			return true
		case o == "r"+row.name:
			a.SetAll, a.ClearAll = a.SetAll&^row.clear|row.set, a.ClearAll&^row.set|row.clear
			return true
		}
	}
	return false
}

func (a *Attributes) takePropagation(o string) bool {
	name, all := o, false
	if len(o) > 0 && o[0] == 'r' {
		name, all = o[1:], true
	}
	i := slices.IndexFunc(propagations, func(p struct {
		name string
		bit  uint64
	}) bool {
		return p.name == name
	})
	if i < 0 {
		return false
	}
	a.Propagation, a.PropagateAll = propagations[i].bit, all
	return true
}

// Has reports whether list holds the option.
func (m Mount) Has(option string) bool { return slices.Contains(m.Options, option) }

// String is the mount in one line, as the plan prints it.
func (m Mount) String() string {
	s := "mount     " + pad(m.Type, 8) + " on " + pad(m.Target, 14)
	if m.Type == "bind" {
		s += " from " + m.Source
	}
	if len(m.Options) > 0 {
		s += " " + strings.Join(m.Options, ",")
	}
	return s
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-len(s))) }
