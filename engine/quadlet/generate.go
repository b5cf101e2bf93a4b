package quadlet

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/internal/sys"
)

// Dirs are where quadlet files lie, the first before the others: Podman's places.
// QUADLET_UNIT_DIRS of the environment replaces them.
func Dirs(user bool, uid string, getenv func(string) string) []string {
	if list := getenv("QUADLET_UNIT_DIRS"); list != "" {
		return filepath.SplitList(list)
	}
	if !user {
		return []string{"/run/containers/systemd", "/etc/containers/systemd", "/usr/share/containers/systemd"}
	}
	var dirs []string
	if run := getenv("XDG_RUNTIME_DIR"); run != "" {
		dirs = append(dirs, run+"/containers/systemd")
	}
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && getenv("HOME") != "" {
		config = getenv("HOME") + "/.config"
	}
	if config != "" {
		dirs = append(dirs, config+"/containers/systemd")
	}
	return append(dirs, "/etc/containers/systemd/users/"+uid, "/etc/containers/systemd/users", "/usr/share/containers/systemd/users")
}

// Find reads the quadlet files in dirs and below, with the additions in NAME.d/*.conf.
// Of two with the same name that of the earlier directory counts. Errors of one
// file do not keep the others from being read.
func Find(dirs []string) (files []*File, err error) {
	var bad []error
	seen := map[string]bool{}
	for _, top := range dirs {
		_ = filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if d.IsDir() {
				return skipped(top, at)
			}
			name := path.Base(at)
			if _, ok := kindOf(name); !ok || seen[name] {
				return nil
			}
			seen[name] = true
			f, err := read(at, dirs)
			if err != nil {
				bad = append(bad, err)
				return nil
			}
			files = append(files, f)
			return nil
		})
	}
	return files, errors.Join(bad...)
}

// skipped passes over the users' directories in root's, and over additions.
func skipped(top, at string) error {
	if at != top && (strings.HasSuffix(at, ".d") || at == "/etc/containers/systemd/users" || at == "/usr/share/containers/systemd/users") {
		return fs.SkipDir
	}
	return nil
}

// read reads a file and its additions.
func read(at string, dirs []string) (*File, error) {
	f, err := readOne(at)
	if err != nil {
		return nil, err
	}
	additions := map[string]string{} // by their names
	for _, dir := range slices.Backward(append([]string{path.Dir(at)}, dirs...)) {
		list, _ := filepath.Glob(filepath.Join(dir, path.Base(at)+".d", "*.conf"))
		for _, p := range list {
			additions[path.Base(p)] = p
		}
	}
	names := make([]string, 0, len(additions))
	for n := range additions {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		more, err := readOne(additions[n])
		if err != nil {
			return nil, err
		}
		f.Entries = append(f.Entries, more.Entries...)
	}
	return f, nil
}

func readOne(at string) (*File, error) {
	b, err := sys.ReadFile(at, maxFile+1)
	if err != nil {
		return nil, &fault.Error{Op: "read", On: at, Err: err}
	}
	return Parse(at, string(b))
}

// CompileAll makes the units of files. Errors of one do not keep the others from
// being made.
func CompileAll(files []*File, o Options) (units []*Unit, err error) {
	others := map[string]string{}
	for _, f := range files {
		others[path.Base(f.Path)] = ObjectName(f)
	}
	var bad []error
	for _, f := range files {
		u, err := Compile(f, others, o)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		units = append(units, u)
	}
	return units, errors.Join(bad...)
}

// Write writes a unit into a directory of systemd's, with its links.
func (u *Unit) Write(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, u.Name), []byte(u.Text), 0o644); err != nil {
		return &fault.Error{Op: "write unit", On: u.Name, Err: err}
	}
	for _, l := range u.Links {
		at := filepath.Join(dir, l)
		if err := os.MkdirAll(path.Dir(at), 0o755); err != nil {
			return &fault.Error{Op: "write unit", On: u.Name, Err: err}
		}
		target := u.Name
		if strings.Contains(l, "/") {
			target = "../" + target
		}
		if err := os.Symlink(target, at); err != nil && !errors.Is(err, fs.ErrExist) {
			return &fault.Error{Op: "write unit", On: u.Name, Err: err}
		}
	}
	return nil
}
