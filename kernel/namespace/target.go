package namespace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Target is a namespace by a file that stands for it.
type Target struct {
	Kind Kind
	Path string // /proc/4711/ns/net, or a pin
}

// Targets finds the namespaces that name stands for: a pid, the name of a pin
// in pins, or a path with a slash, of a pin or of a directory of pins. With no
// kinds given these are all that differ from this process's own; a pinned
// name has those that were pinned.
func Targets(pins Pins, name string, kinds ...Kind) ([]Target, error) {
	if pid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return ofProcess(int(pid), kinds)
	}
	path := name
	if !strings.Contains(name, "/") {
		if !validName(name) {
			return nil, badName(name)
		}
		path = filepath.Join(pins.Dir, name)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, &fault.Error{Op: "find namespace", On: name, Err: err, Hint: `want a pid, a file, or a name that "kiste namespace list" shows under PIN`}
	case info.IsDir():
		return ofDirectory(path, kinds)
	}
	return ofFile(path, kinds)
}

func ofProcess(pid int, kinds []Kind) ([]Target, error) {
	all := kinds
	if len(all) == 0 {
		all = Kinds()
	}
	var targets []Target
	for _, k := range all {
		t := Target{k, filepath.Join("/proc", strconv.Itoa(pid), "ns", k.File)}
		_, there, err := sys.InodeOf(t.Path)
		if err != nil {
			hint := "no process has this number"
			if fault.KindOf(err) == fault.Denied {
				hint = "be root: the process is not yours"
			}
			return nil, &fault.Error{Op: "find namespace", On: t.Path, Err: err, Hint: hint}
		}
		if _, here, err := sys.InodeOf("/proc/self/ns/" + k.File); err == nil && here == there && len(kinds) == 0 {
			continue
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func ofDirectory(dir string, kinds []Kind) ([]Target, error) {
	var targets []Target
	for _, k := range Kinds() {
		path := filepath.Join(dir, k.Name)
		wanted := slices.ContainsFunc(kinds, func(w Kind) bool { return w.Name == k.Name })
		_, err := os.Lstat(path)
		switch {
		case err == nil && (wanted || len(kinds) == 0):
			targets = append(targets, Target{k, path})
		case wanted:
			return nil, &fault.Error{Op: "find namespace", On: path, Err: err}
		}
	}
	if len(targets) == 0 {
		return nil, &fault.Error{Op: "find namespaces in", On: dir, Kind: fault.NotFound}
	}
	return targets, nil
}

func ofFile(path string, kinds []Kind) ([]Target, error) {
	fd, err := sys.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &fault.Error{Op: "open namespace", On: path, Err: err}
	}
	defer closeAll([]int{fd})
	k, err := kindOf(fd)
	if err != nil {
		return nil, &fault.Error{Op: "open namespace", On: path, Kind: fault.Invalid, Err: err}
	}
	if len(kinds) > 0 && !slices.ContainsFunc(kinds, func(w Kind) bool { return w.Name == k.Name }) {
		return nil, bad("enter namespace", path, "it is of kind "+k.Name)
	}
	return []Target{{k, path}}, nil
}

// kindOf asks the kernel what fd is. Only a file of nsfs is asked, since
// another driver may take the same number for something else.
func kindOf(fd int) (Kind, error) {
	if magic, err := sys.FSType(fd); err != nil || magic != unix.NSFS_MAGIC {
		return Kind{}, fmt.Errorf("this is no namespace")
	}
	flag, err := sys.NamespaceKind(fd)
	if err != nil {
		return Kind{}, err
	}
	for _, k := range Kinds() {
		if k.Flag == uintptr(flag) {
			return k, nil
		}
	}
	return Kind{}, fmt.Errorf("a namespace of unknown kind %#x", flag)
}

// openTargets opens each; what it has opened by then it returns with an error.
func openTargets(targets []Target) (fds []int, err error) {
	for _, t := range targets {
		fd, err := sys.OpenFile(t.Path, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return fds, &fault.Error{Op: "open namespace", On: t.Path, Err: err}
		}
		fds = append(fds, fd)
		k, err := kindOf(fd)
		if err != nil {
			return fds, &fault.Error{Op: "open namespace", On: t.Path, Kind: fault.Invalid, Err: err}
		}
		if k.Name != t.Kind.Name {
			return fds, bad("join namespace", t.Path, "it is of kind "+k.Name+", not "+t.Kind.Name)
		}
	}
	return fds, nil
}
