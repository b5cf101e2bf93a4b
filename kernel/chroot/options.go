package chroot

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Parsed are the options of a mount, sorted by who takes them.
type Parsed struct {
	Set, Clear       uint64   // unix.MOUNT_ATTR_ bits of the mount
	RecSet, RecClear uint64   // the same for the mount and all below it
	Flags            uintptr  // the unix.MS_ bits for mount(2)
	Propagation      []uint64 // unix.MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE, with MS_REC for all mounts below too; in this order
	Bind, Rec        bool     // "bind", "rbind"
	IDMap            string   // "idmap" or "ridmap"
	Data             []string // for the file system: "size=64m"
}

// An option is one word of mount(8) or runtime-spec's config.md, "Linux mount
// options". Attr and flag are set, or cleared where off says so.
type option struct {
	name string
	attr uint64
	flag uintptr
	off  bool
}

// atime are the bits of the kind of access time, of which relatime is zero.
const atime = unix.MOUNT_ATTR__ATIME

// options is the table. A name with an r before it is the recursive one, for
// those with an attr.
var options = [...]option{
	{"ro", unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY, false},
	{"rw", unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY, true},
	{"nosuid", unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID, false},
	{"suid", unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID, true},
	{"nodev", unix.MOUNT_ATTR_NODEV, unix.MS_NODEV, false},
	{"dev", unix.MOUNT_ATTR_NODEV, unix.MS_NODEV, true},
	{"noexec", unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC, false},
	{"exec", unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC, true},
	{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME, false},
	{"diratime", unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME, true},
	{"nosymfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MS_NOSYMFOLLOW, false},
	{"symfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MS_NOSYMFOLLOW, true},
	{"noatime", unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME, false},
	{"atime", unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME, true},
	{"relatime", unix.MOUNT_ATTR_RELATIME, unix.MS_RELATIME, false},
	{"norelatime", unix.MOUNT_ATTR_RELATIME, unix.MS_RELATIME, true},
	{"strictatime", unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME, false},
	{"nostrictatime", unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME, true},
	{"sync", 0, unix.MS_SYNCHRONOUS, false},
	{"async", 0, unix.MS_SYNCHRONOUS, true},
	{"dirsync", 0, unix.MS_DIRSYNC, false},
	{"mand", 0, unix.MS_MANDLOCK, false},
	{"nomand", 0, unix.MS_MANDLOCK, true},
	{"lazytime", 0, unix.MS_LAZYTIME, false},
	{"nolazytime", 0, unix.MS_LAZYTIME, true},
	{"iversion", 0, unix.MS_I_VERSION, false},
	{"noiversion", 0, unix.MS_I_VERSION, true},
	{"silent", 0, unix.MS_SILENT, false},
	{"loud", 0, unix.MS_SILENT, true},
	{"remount", 0, unix.MS_REMOUNT, false},
	{"bind", 0, unix.MS_BIND, false},
	{"rbind", 0, unix.MS_BIND | unix.MS_REC, false},
	{"defaults", 0, 0, false},
}

// ParseOptions sorts words, in their order: a later one wins over an earlier.
// A word that is no option of mount(8) or the runtime-spec is the file
// system's and comes back in Data; an empty one is none, as in mount(2)'s data. It
// never fails: it is the file system that refuses what it does not know.
func ParseOptions(words []string) (Parsed, error) {
	var p Parsed
	for _, word := range words {
		if word != "" && !p.named(word) && !p.propagate(word) {
			p.Data = append(p.Data, word)
		}
	}
	p.Bind, p.Rec = p.Flags&unix.MS_BIND != 0, p.Flags&unix.MS_REC != 0
	return p, nil
}

// Super are the options that are the file system's as a whole, as fsconfig(2)
// takes them: "ro", "sync".
func (p Parsed) Super() []string {
	var names []string
	for _, o := range options {
		if p.Flags&o.flag&^(unix.MS_BIND|unix.MS_REC|unix.MS_REMOUNT|unix.MS_SILENT) != 0 && o.attr == 0 && !o.off && !isATime(o) {
			names = append(names, o.name)
		}
	}
	if p.Flags&unix.MS_RDONLY != 0 {
		names = append(names, "ro")
	}
	return names
}

func (p *Parsed) named(word string) bool {
	if word == "idmap" || word == "ridmap" {
		p.IDMap = word
		return true
	}
	rest, recursive := strings.CutPrefix(word, "r")
	for i := range options {
		switch o := &options[i]; {
		case o.name == word:
			apply(&p.Set, &p.Clear, *o)
			p.flag(*o)
			return true
		case recursive && o.name == rest && (o.attr != 0 || isATime(*o)):
			apply(&p.RecSet, &p.RecClear, *o)
			return true
		}
	}
	return false
}

// apply turns a bit on or off. The kinds of atime exclude each other, and
// mount_setattr(2) wants all their bits cleared for one to be set; relatime is
// the zero among them.
func apply(set, clear *uint64, o option) {
	if isATime(o) {
		*set &^= atime
		*clear |= atime
		if !o.off {
			*set |= o.attr
		}
		return
	}
	if o.off {
		*set &^= o.attr
		*clear |= o.attr
		return
	}
	*set |= o.attr
	*clear &^= o.attr
}

func isATime(o option) bool {
	return strings.HasSuffix(o.name, "atime") && !strings.HasSuffix(o.name, "diratime")
}

func (p *Parsed) flag(o option) {
	if o.off {
		p.Flags &^= o.flag
		return
	}
	p.Flags |= o.flag
}

func (p *Parsed) propagate(word string) bool {
	kind := propagation(word)
	if bare, rec := strings.CutPrefix(word, "r"); kind == 0 && rec {
		if kind = propagation(bare); kind != 0 {
			kind |= unix.MS_REC
		}
	}
	if kind != 0 {
		p.Propagation = append(p.Propagation, kind)
	}
	return kind != 0
}

func propagation(word string) uint64 {
	switch word {
	case "private":
		return unix.MS_PRIVATE
	case "shared":
		return unix.MS_SHARED
	case "slave":
		return unix.MS_SLAVE
	case "unbindable":
		return unix.MS_UNBINDABLE
	}
	return 0
}
