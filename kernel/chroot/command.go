package chroot

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Command is what runs in a Root that the calling thread has entered.
type Command struct {
	Args    []string
	Env     []string
	Workdir string // inside; empty: /
	User    string // "1000", "1000:1000", "ann", "ann:staff", looked up inside; empty: as now
}

// Prepare goes to the working directory and becomes the user.
func (c Command) Prepare() error {
	var ids *IDs
	if c.User != "" {
		found, err := Lookup(c.User)
		if err != nil {
			return err
		}
		ids = &found
	}
	if c.Workdir != "" {
		if err := sys.Chdir(c.Workdir); err != nil {
			return &fault.Error{Op: "enter working directory", On: c.Workdir, Err: cause(err)}
		}
	}
	if ids == nil {
		return nil
	}
	if groupsDenied() {
		ids.Groups = nil
	}
	if err := sys.SetIDs(ids.UID, ids.GID, ids.Groups); err != nil {
		return &fault.Error{Op: "become user", On: c.User, Err: err}
	}
	return nil
}

// groupsDenied reports whether this user namespace forbids setgroups(2), as it
// does where its maker could map nobody but itself: user_namespaces(7).
func groupsDenied() bool {
	text, err := readProc("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(text) == "deny"
}

func readProc(path string) (string, error) {
	fd, err := sys.OpenFile(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer sys.Close(fd)
	if magic, err := sys.FSType(fd); err != nil || magic != unix.PROC_SUPER_MAGIC {
		return "", errors.Join(err, fault.Invalid)
	}
	b, err := sys.ReadAll(fd, 64)
	return string(b), err
}

// Exec becomes the command and returns only when it failed: with
// fault.NotFound where it is not there.
func (c Command) Exec() error {
	var err error
	for _, path := range c.candidates() {
		e := sys.ExecWith(path, c.Args, c.Env)
		if err == nil || errors.Is(err, unix.ENOENT) {
			err = e
		}
	}
	kind, hint := fault.Denied, ""
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		kind = fault.NotFound
		if sys.Access("/bin/sh", unix.X_OK) != nil {
			hint = "the directory has no /bin/sh: it may not be the root of a system"
		}
	}
	return &fault.Error{Op: "execute", On: c.Args[0], Kind: kind, Hint: hint, Err: cause(err)}
}

// candidates are the paths where the command may be, as execvp(3) looks.
func (c Command) candidates() []string {
	name := c.Args[0]
	if name == "" || strings.Contains(name, "/") {
		return []string{name}
	}
	dirs := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range c.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok && v != "" {
			dirs = v
		}
	}
	var all []string
	for dir := range strings.SplitSeq(dirs, ":") {
		all = append(all, strings.TrimSuffix(dir, "/")+"/"+name)
	}
	return all
}

// cause is the errno at the root of err.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// IDs are those of a process. Nil groups: none but GID.
type IDs struct {
	UID, GID int
	Groups   []uint32
}

// maxAccounts bounds what is read of a passwd(5) or group(5) file.
const maxAccounts = 4 << 20

// Lookup finds who "USER[:GROUP]" is in the /etc/passwd and /etc/group of the
// calling thread's root. A number need not be there: its group is then 0, as in
// Docker. All digits are a number, never a name.
func Lookup(who string) (IDs, error) {
	passwd, err := readAccounts("/etc/passwd")
	if err != nil {
		return IDs{}, err
	}
	group, err := readAccounts("/etc/group")
	if err != nil {
		return IDs{}, err
	}
	return lookup(who, passwd, group)
}

// readAccounts reads a file of the tree, which may be anything: it does not
// wait for a pipe's other end. A missing one is empty.
func readAccounts(path string) (string, error) {
	fd, err := sys.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer sys.Close(fd)
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxAccounts {
		return "", &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: errors.New("it is no regular file of at most 4 MiB"),
			Hint: "give the user and group as numbers, and mend the file"}
	}
	b, err := sys.ReadAll(fd, maxAccounts)
	return string(b), err
}

func lookup(who, passwd, group string) (IDs, error) {
	user, groupName, hasGroup := strings.Cut(who, ":")
	ids, name, err := findUser(user, passwd)
	if err != nil {
		return IDs{}, err
	}
	if hasGroup {
		ids.GID, err = findGroup(groupName, group)
		ids.Groups = []uint32{}
		return ids, err
	}
	ids.Groups = memberOf(name, group)
	return ids, nil
}

func findUser(user, passwd string) (ids IDs, name string, err error) {
	number, isNumber := numeric(user)
	if !isNumber && user != "" && strings.Trim(user, "0123456789") == "" {
		return IDs{}, "", &fault.Error{Op: "find user", On: user, Kind: fault.Invalid, Err: errors.New("no id is as large")}
	}
	for line := range strings.Lines(passwd) {
		// NAME:PASSWORD:UID:GID:…
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 4 {
			continue
		}
		uid, ok1 := numeric(f[2])
		gid, ok2 := numeric(f[3])
		if ok1 && ok2 && (isNumber && uid == number || !isNumber && f[0] == user) {
			return IDs{UID: uid, GID: gid}, f[0], nil
		}
	}
	if isNumber {
		return IDs{UID: number}, "", nil
	}
	return IDs{}, "", &fault.Error{Op: "find user", On: user, Kind: fault.NotFound, Err: errors.New("the tree's /etc/passwd has none"),
		Hint: "give it as a number"}
}

func findGroup(name, group string) (int, error) {
	if n, ok := numeric(name); ok {
		return n, nil
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if gid, ok := numeric(f[2]); ok {
			return gid, nil
		}
	}
	return 0, &fault.Error{Op: "find group", On: name, Kind: fault.NotFound, Err: errors.New("the tree's /etc/group has none"),
		Hint: "give it as a number"}
}

// memberOf are the groups that list name, at most the kernel's 65536.
func memberOf(name, group string) []uint32 {
	groups := []uint32{}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if name == "" || len(f) < 4 || len(groups) >= 65536 {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, ok := numeric(f[2]); ok && member == name {
				groups = append(groups, uint32(gid))
				break
			}
		}
	}
	return groups
}

// numeric reads an id. The largest is no id: it means "none" to setresuid(2).
func numeric(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n < math.MaxUint32
}

// ParseBind reads "SRC[:DST[:OPTIONS]]"; DST is SRC without one, and OPTIONS
// are as in mount(8): "ro". All that is mounted below SRC comes along.
func ParseBind(s string) (Mount, error) {
	f := strings.SplitN(s, ":", 3)
	m := Mount{Type: "bind", Source: f[0], Target: f[0], Options: []string{"rbind"}}
	if len(f) > 1 && f[1] != "" {
		m.Target = f[1]
	}
	if len(f) > 2 {
		for word := range strings.SplitSeq(f[2], ",") {
			if word == "ro" {
				word = "rro" // what is mounted below too
			}
			m.Options = append(m.Options, word)
		}
	}
	switch p, err := ParseOptions(m.Options); {
	case err != nil:
		return Mount{}, err
	case f[0] == "" || !strings.HasPrefix(m.Target, "/"):
		return Mount{}, &fault.Error{Op: "bind", On: s, Kind: fault.Invalid, Err: errors.New("want SOURCE[:/TARGET[:ro]]")}
	case len(p.Data) > 0:
		return Mount{}, &fault.Error{Op: "bind", On: s, Kind: fault.Invalid, Err: fmt.Errorf("there is no option %q", p.Data[0])}
	}
	return m, nil
}
