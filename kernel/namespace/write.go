package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// WriteMaps gives the user namespace of process pid, which has none yet, its
// maps. It writes them itself where that is allowed: with CAP_SETUID and
// CAP_SETGID, or for the caller's own single id, and then turns setgroups(2)
// off first as user_namespaces(7) demands. Else newuidmap(1) and newgidmap(1)
// of the host do it, for ranges of /etc/subuid and /etc/subgid.
func WriteMaps(pid int, uids, gids IDMaps) error {
	if err := errors.Join(uids.check(), gids.check()); err != nil {
		return err
	}
	if mayMapAll() {
		return writeBoth(pid, uids, gids)
	}
	if own(uids, os.Geteuid()) && own(gids, os.Getegid()) {
		if err := writeProc(pid, "setgroups", "deny"); err != nil {
			return err
		}
		return writeBoth(pid, uids, gids)
	}
	if err := mapBy("newuidmap", pid, uids, "/etc/subuid"); err != nil {
		return err
	}
	return mapBy("newgidmap", pid, gids, "/etc/subgid")
}

// DeniesGroups reports whether WriteMaps has to turn setgroups(2) off.
func DeniesGroups(uids, gids IDMaps) bool {
	return !mayMapAll() && own(uids, os.Geteuid()) && own(gids, os.Getegid())
}

func own(ms IDMaps, id int) bool {
	return len(ms) == 1 && ms[0].Size == 1 && ms[0].Outside == uint32(id)
}

func mayMapAll() bool {
	effective, _, _, err := sys.Capget()
	const both = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return err == nil && effective&both == both
}

func writeBoth(pid int, uids, gids IDMaps) error {
	if err := writeProc(pid, "uid_map", uids.file()); err != nil {
		return err
	}
	return writeProc(pid, "gid_map", gids.file())
}

func writeProc(pid int, file, text string) error {
	path := filepath.Join("/proc", strconv.Itoa(pid), file)
	err := sys.WriteKnob(path, text)
	if err == nil {
		return nil
	}
	hint := ""
	if fault.KindOf(err) == fault.Denied {
		hint = userRemedy()
		if hint == "" {
			hint = "the ids outside must be mapped in this user namespace, and be your own unless you are root"
		}
	}
	return &fault.Error{Op: "write id map", On: strings.TrimSpace(text), Hint: hint, Err: err}
}

// helperDirs are where a host keeps newuidmap; $PATH is not asked, since the
// program runs with root's rights.
func helperDirs() []string {
	return []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"}
}

func mapBy(helper string, pid int, ms IDMaps, table string) error {
	path := ""
	for _, dir := range helperDirs() {
		if sys.Access(filepath.Join(dir, helper), unix.X_OK) == nil {
			path = filepath.Join(dir, helper)
			break
		}
	}
	if path == "" {
		return &fault.Error{Op: "map ids", On: ms.String(), Kind: fault.Unsupported,
			Err: fmt.Errorf("%s is not installed", helper), Hint: "install newuidmap (Debian, Fedora: package uidmap or shadow-utils), or map your own id alone"}
	}
	said, err := output(path, append([]string{helper, strconv.Itoa(pid)}, ms.words()...))
	if err != nil {
		return &fault.Error{Op: "map ids", On: ms.String(), Kind: fault.Denied,
			Err: fmt.Errorf("%s: %w", helper, errors.Join(err, said)), Hint: table + " must give you the ids outside: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + strconv.Itoa(os.Geteuid())}
	}
	return nil
}

// maxSaid bounds what is kept of a helper's complaint.
const maxSaid = 4 << 10

// output runs a helper to its end with an empty environment; said is what it
// complained.
func output(path string, args []string) (said, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	defer null.Close()
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: []string{}, Files: []*os.File{null, null, w}})
	w.Close()
	if err != nil {
		return nil, err
	}
	b, _ := io.ReadAll(io.LimitReader(r, maxSaid))
	state, err := p.Wait()
	switch {
	case err != nil:
		return nil, err
	case state.Success():
		return nil, nil
	}
	return errors.New(string(bytes.TrimSpace(b))), errors.New(state.String())
}

// userRemedy is what a person does on this host when user namespaces are
// refused, or "" where nothing is known to refuse them.
func userRemedy() string {
	for _, s := range []struct{ file, bad, remedy string }{
		{"user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=28633"},
		{"kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for kiste with \"userns,\""},
	} {
		text, err := readBounded(filepath.Join("/proc/sys", s.file), 64)
		if err == nil && strings.TrimSpace(text) == s.bad {
			return s.remedy
		}
	}
	return ""
}
