package plan

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func words(list ...uint64) []byte {
	b := make([]byte, 0, 8*len(list))
	for _, w := range list {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}

func hex(n uint64) string   { return "0x" + strconv.FormatUint(n, 16) }
func octal(n uint64) string { return strconv.FormatUint(n, 8) }
func quote(s string) string { return strconv.Quote(s) }

// formText is the text of an argument that has a form.
func formText(a Arg) string {
	switch a.Form {
	case Octal:
		return "0" + octal(a.Value)
	case Attrs:
		return attrText(a.Value)
	case Node:
		return nodeName(a.Value&unix.S_IFMT) + "|0" + octal(a.Value&^unix.S_IFMT)
	case Device:
		return "makedev(" + decimal(unix.Major(a.Value)) + ", " + decimal(unix.Minor(a.Value)) + ")"
	case Quoted:
		return quote(string(a.Bytes))
	case Groups:
		return fmt.Sprint(numbersOf(a.Bytes[:len(a.Bytes)-4]))
	case Variables:
		return "{" + strconv.Itoa(len(*a.List)) + " variables}"
	}
	w := wordsOf(a.Bytes)
	switch a.Form {
	case Attr:
		return "{set " + hex(w[0]) + " clear " + hex(w[1]) + " propagation " + hex(w[2]) + "}"
	case How:
		return "{" + bitText(w[0], openNames) + ", " + bitText(w[2], resolveNames) + "}"
	}
	n := numbersOf(a.Bytes) // of capset(2): the low words of all three sets come first
	sets := make([]string, 3)
	for i := range sets {
		sets[i] = hex(uint64(n[i]) | uint64(n[3+i])<<32)
	}
	return "{" + strings.Join(sets, " ") + "}"
}

// numbersOf are the numbers of 32 bits that capData and groupBytes write.
func numbersOf(b []byte) []uint32 {
	list := make([]uint32, 0, len(b)/4)
	for ; len(b) >= 4; b = b[4:] {
		list = append(list, binary.LittleEndian.Uint32(b))
	}
	return list
}

func wordsOf(b []byte) []uint64 {
	list := make([]uint64, 0, len(b)/8)
	for ; len(b) >= 8; b = b[8:] {
		list = append(list, binary.NativeEndian.Uint64(b))
	}
	return list
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// A bitName is the name of a bit of flags.
type bitName struct {
	bit  uint64
	name string
}

var openNames = []bitName{
	{unix.O_WRONLY, "O_WRONLY"}, {unix.O_RDWR, "O_RDWR"}, {unix.O_PATH, "O_PATH"}, {unix.O_DIRECTORY, "O_DIRECTORY"},
	{unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_NOCTTY, "O_NOCTTY"}, {unix.O_CLOEXEC, "O_CLOEXEC"},
}

var resolveNames = []bitName{
	{unix.RESOLVE_IN_ROOT, "RESOLVE_IN_ROOT"}, {unix.RESOLVE_NO_MAGICLINKS, "RESOLVE_NO_MAGICLINKS"},
	{unix.RESOLVE_NO_SYMLINKS, "RESOLVE_NO_SYMLINKS"}, {unix.RESOLVE_NO_XDEV, "RESOLVE_NO_XDEV"},
}

var attrNames = []bitName{
	{unix.MOUNT_ATTR_RDONLY, "MOUNT_ATTR_RDONLY"}, {unix.MOUNT_ATTR_NOSUID, "MOUNT_ATTR_NOSUID"}, {unix.MOUNT_ATTR_NODEV, "MOUNT_ATTR_NODEV"},
	{unix.MOUNT_ATTR_NOEXEC, "MOUNT_ATTR_NOEXEC"}, {unix.MOUNT_ATTR_NOATIME, "MOUNT_ATTR_NOATIME"}, {unix.MOUNT_ATTR_STRICTATIME, "MOUNT_ATTR_STRICTATIME"},
	{unix.MOUNT_ATTR_NODIRATIME, "MOUNT_ATTR_NODIRATIME"}, {unix.MOUNT_ATTR_NOSYMFOLLOW, "MOUNT_ATTR_NOSYMFOLLOW"},
}

func attrText(attrs uint64) string { return bitText(attrs, attrNames) }

// bitText names the bits of flags that are set; without any it is "0".
func bitText(flags uint64, known []bitName) string {
	var names []string
	for _, k := range known {
		if flags&k.bit != 0 {
			names = append(names, k.name)
		}
	}
	if len(names) == 0 {
		return "0"
	}
	return strings.Join(names, "|")
}
