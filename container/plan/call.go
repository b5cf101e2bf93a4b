package plan

import (
	"golang.org/x/sys/unix"
)

// The makers of calls. Constants are those of linux/mount.h and friends.

func num(n uint64) Arg             { return Arg{Kind: Num, Value: n} }
func named(n uint64, t string) Arg { return Arg{Kind: Num, Value: n, Text: t} }
func modeArg(n uint64) Arg         { return Arg{Kind: Num, Form: Octal, Value: n} }
func str(s string) Arg             { return Arg{Kind: Str, Text: s} }
func from(s Slot) Arg              { return Arg{Kind: FromSlot, Slot: s} }
func buf(b []byte, text string) Arg {
	return Arg{Kind: Buf, Bytes: b, Text: text}
}

const atFDCWD = ^uint64(99) // AT_FDCWD, -100

func cwd() Arg { return named(atFDCWD, "AT_FDCWD") }

// call is not copied to where it is used, of which there are a hundred.
//
//go:noinline
func (c *compiler) call(name string, nr uintptr, args ...Arg) Call {
	return Call{Name: name, Nr: nr, Args: c.args.Keep(args, usualArgs)}
}

// someCalls is room for those of one step that has many.
const someCalls = 16

// How many a piece of a pool has room for: mostly one is enough, of arguments two.
const usualArgs, usualCalls, usualActs = 512, 256, 32

func (c Call) to(s Slot) Call             { c.Out = s; return c }
func (c Call) mayFail() Call              { c.OnErr = Ignore; return c }
func (c Call) mayFailWith(e uintptr) Call { c.OnErr, c.Errno = IgnoreErrno, e; return c }

func (c Call) want(n int) Call { c.Want = n; return c }

// thenSkip passes over the next n calls when c succeeds, and goes on with them
// when it fails.
func (c Call) thenSkip(n int) Call { c.OnErr, c.Skip, c.SkipOnOK = Ignore, n, true; return c }

// skipOnError passes over the next n calls when c fails.
func (c Call) skipOnError(n int) Call { c.OnErr, c.SkipOnOK, c.Skip = SkipOnErr, false, n; return c }

func (c *compiler) openTree(path string, recursive bool) Call {
	flags, text := uint64(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC"
	if recursive {
		flags, text = flags|unix.AT_RECURSIVE, text+"|AT_RECURSIVE"
	}
	return c.call("open_tree", unix.SYS_OPEN_TREE, cwd(), str(path), named(flags, text))
}

func (c *compiler) openTreeOf(fd Slot) Call {
	return c.call("open_tree", unix.SYS_OPEN_TREE, from(fd), str(""),
		named(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH"))
}

// openTreeRec clones what is at a path and below; "": dir itself.
func (c *compiler) openTreeRec(dir Arg, path string) Call {
	flags, text := uint64(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE), "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE"
	if path == "" {
		flags, text = flags|unix.AT_EMPTY_PATH, text+"|AT_EMPTY_PATH"
	}
	return c.call("open_tree", unix.SYS_OPEN_TREE, dir, str(path), named(flags, text))
}

// moveTo attaches a detached mount at a path below dir.
func (c *compiler) moveTo(mount Slot, dir Arg, path string) Call {
	return c.call("move_mount", unix.SYS_MOVE_MOUNT, from(mount), str(""), dir, str(path), named(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"))
}

// moveOn attaches a detached mount at an open target.
func (c *compiler) moveOn(mount, target Slot) Call {
	return c.call("move_mount", unix.SYS_MOVE_MOUNT, from(mount), str(""), from(target), str(""),
		named(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"))
}

func (c *compiler) setattr(mount Slot, flags uint64, set, clear, propagation uint64) Call {
	text := "AT_EMPTY_PATH"
	if flags&unix.AT_RECURSIVE != 0 {
		text += "|AT_RECURSIVE"
	}
	return c.call("mount_setattr", unix.SYS_MOUNT_SETATTR, from(mount), str(""), named(flags|unix.AT_EMPTY_PATH, text),
		Arg{Kind: Buf, Form: Attr, Bytes: words(set, clear, propagation, 0)}, num(32))
}

func (c *compiler) fsopen(fstype string) Call {
	return c.call("fsopen", unix.SYS_FSOPEN, str(fstype), named(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC"))
}

func (c *compiler) fsString(fs Slot, key, value string) Call {
	return c.call("fsconfig", unix.SYS_FSCONFIG, from(fs), named(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"), str(key), str(value), num(0))
}

func (c *compiler) fsFlag(fs Slot, key string) Call {
	return c.call("fsconfig", unix.SYS_FSCONFIG, from(fs), named(unix.FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG"), str(key), named(0, "NULL"), num(0))
}

func (c *compiler) fsCreate(fs Slot) Call {
	return c.call("fsconfig", unix.SYS_FSCONFIG, from(fs), named(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"), named(0, "NULL"), named(0, "NULL"), num(0))
}

func (c *compiler) fsmount(fs Slot, attrs uint64) Call {
	return c.call("fsmount", unix.SYS_FSMOUNT, from(fs), named(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), Arg{Kind: Num, Form: Attrs, Value: attrs})
}

// openTarget opens where something is to be mounted, by path. The root is the
// container's by then, so links lead nowhere else; strict refuses any link,
// for the places that the kernel's own file systems must have
// (CVE-2019-19921, CVE-2026-41579).
func (c *compiler) openTarget(dir Arg, path string, strict bool) Call {
	if strict {
		return c.openIn(dir, path, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	}
	return c.openIn(dir, path, unix.O_PATH, 0)
}

// openDir opens a directory of the container. Links of procfs are refused:
// they lead to where our descriptors do (CVE-2024-21626).
func (c *compiler) openDir(path string) Call {
	return c.openIn(cwd(), path, unix.O_PATH|unix.O_DIRECTORY, 0)
}

func (c *compiler) openIn(dir Arg, path string, flags, resolve uint64) Call {
	return c.call("openat2", unix.SYS_OPENAT2, dir, str(path),
		Arg{Kind: Buf, Form: How, Bytes: words(flags|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS|resolve)}, num(24))
}

func (c *compiler) mkdirIn(dir Arg, name string, mode uint64) Call {
	return c.call("mkdirat", unix.SYS_MKDIRAT, dir, str(name), modeArg(mode))
}

func (c *compiler) open(path string, flags, mode uint64, text string) Call {
	return c.openAt(cwd(), path, flags, mode, text)
}

func (c *compiler) openAt(dir Arg, path string, flags, mode uint64, text string) Call {
	return c.call("openat", unix.SYS_OPENAT, dir, str(path), named(flags, text), modeArg(mode))
}

// touch makes an empty file to mount something on. It opens none: a file that
// is open for writing keeps its file system from becoming read-only.
func (c *compiler) touch(dir Arg, name string) Call {
	return c.call("mknodat", unix.SYS_MKNODAT, dir, str(name), named(unix.S_IFREG|0o644, "S_IFREG|0644"), num(0))
}

func (c *compiler) symlinkIn(target string, dir Arg, name string) Call {
	return c.call("symlinkat", unix.SYS_SYMLINKAT, str(target), dir, str(name))
}

func (c *compiler) unlinkIn(dir Arg, name string) Call {
	return c.call("unlinkat", unix.SYS_UNLINKAT, dir, str(name), num(0))
}

func (c *compiler) write(fd Slot, text string) Call {
	return c.call("write", unix.SYS_WRITE, from(fd), Arg{Kind: Buf, Form: Quoted, Bytes: []byte(text)}, num(uint64(len(text))))
}

// prctl: the arguments that are left out are 0, which prctl(2) asks for.
func (c *compiler) prctl(name string, option uint64, args ...Arg) Call {
	var room [6]Arg // as many as a call has
	all := append(append(room[:0], named(option, name)), args...)
	return c.call("prctl", unix.SYS_PRCTL, all...)
}

func (c *compiler) umask(mask uint64) Call { return c.call("umask", unix.SYS_UMASK, modeArg(mask)) }
