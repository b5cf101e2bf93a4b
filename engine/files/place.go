package files

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"kiste/fault"
)

// What Docker's "cp" does with slashes and with what is there or is not
// (moby's pkg/archive, copy.go, whose rules those of cp(1) nearly are).

// A from is what is copied.
type from struct {
	name  string // what the tar calls it; ".": only what is in it
	isDir bool
}

// A to is where it is copied to.
type to struct {
	path          string // as it was asked for, links resolved
	exists, isDir bool
}

// place tells into which directory the tar goes, and what the thing is called
// there. Kind: fault.Invalid.
func place(src from, dst to) (dir, name string, err error) {
	dir, base := splitEntry(dst.path)
	refuse := func(why string) error {
		return &fault.Error{Op: "copy to", On: dst.path, Kind: fault.Invalid, Err: errors.New(why)}
	}
	switch {
	case dst.exists && dst.isDir:
		return dst.path, src.name, nil
	case dst.exists && src.isDir:
		return "", "", refuse("cannot copy directory")
	case !dst.exists && !src.isDir && wantsDir(dst.path):
		return "", "", refuse("no such directory")
	}
	return dir, base, nil
}

// splitEntry parts a path: a slash at its end counts for nothing, and "dir/." is
// "." in dir.
func splitEntry(p string) (dir, base string) {
	clean := filepath.Clean(p)
	if isDot(p) {
		return clean, "."
	}
	return filepath.Dir(clean), filepath.Base(clean)
}

// isDot: the path means what is in the directory.
func isDot(p string) bool { return filepath.Base(p) == "." }

// wantsDir: the path can only be a directory's.
func wantsDir(p string) bool { return strings.HasSuffix(p, "/") || isDot(p) }

// keepEnd gives clean the end that a path had before it was made clean: "/" or
// "/.".
func keepEnd(clean, before string) string {
	if isDot(before) && !isDot(clean) {
		clean = strings.TrimSuffix(clean, "/") + "/."
	}
	if strings.HasSuffix(before, "/") && !strings.HasSuffix(clean, "/") {
		clean += "/"
	}
	return clean
}

// absolute is a path in a container, where all begin at the root.
func absolute(p string) string { return keepEnd(filepath.Join("/", p), p) }

// baseOf is what a tar of p calls it.
func baseOf(p string) string {
	if base := filepath.Base(p); base != "/" {
		return base
	}
	return "."
}

// SplitArg parts an argument of "kiste cp". Container is empty for a path of the
// host, which an absolute one is and one that begins with a dot.
func SplitArg(arg string) (container, path string) {
	container, path, found := strings.Cut(arg, ":")
	if !found || strings.HasPrefix(arg, "/") || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, path
}

func sortNames(names []string) { slices.Sort(names) }
