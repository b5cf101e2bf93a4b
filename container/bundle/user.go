package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
)

// A User is a resolved one.
type User struct {
	UID, GID   uint32
	Additional []uint32 // supplementary groups; the first is GID
	Home       string   // "/" where /etc/passwd does not say
}

// The bounds of what an image may say about its users.
const (
	// MaxAccounts is the most that is read of /etc/passwd or /etc/group.
	MaxAccounts = 8 << 20
	maxGroups   = 65536 // NGROUPS_MAX
	maxID       = 1<<31 - 1
)

// ResolveUser finds out who spec is, "USER[:GROUP]" by name or number, with the
// container's own /etc/passwd and /etc/group (nil: it has none), and extra
// groups. An empty user is 0.
//
// What is all digits is a number and never a name (CVE-2016-3697). Numbers
// beyond 2147483647 are refused, rather than wrapped to 0 (CVE-2024-40635),
// and so are signs. The supplementary groups contain the primary one
// (CVE-2022-36109). Kinds: fault.Invalid, fault.NotFound.
func ResolveUser(spec string, passwd, group []byte, extra []string) (User, error) {
	u, err := resolveUser(spec, string(passwd), string(group), extra)
	if err != nil {
		kind := fault.Invalid
		if errors.Is(err, fault.NotFound) {
			kind = fault.NotFound
		}
		return User{}, &fault.Error{Op: "find user", On: spec, Kind: kind, Err: err,
			Hint: "the names are those of the container's own /etc/passwd and /etc/group; numbers need no entry"}
	}
	return u, nil
}

func resolveUser(spec, passwd, group string, extra []string) (User, error) {
	if len(passwd) > MaxAccounts || len(group) > MaxAccounts {
		return User{}, fmt.Errorf("its /etc/passwd or /etc/group is larger than %d MiB", MaxAccounts>>20)
	}
	name, groupName, hasGroup := strings.Cut(spec, ":")
	if strings.Contains(groupName, ":") || hasGroup && groupName == "" && name == "" {
		return User{}, errors.New("want USER[:GROUP]")
	}
	u, name, err := findUser(name, passwd)
	if err != nil {
		return User{}, err
	}
	var member []uint32
	if groupName != "" {
		u.GID, err = findGroup(groupName, group)
	} else if name != "" {
		member, err = groupsOf(name, group)
	}
	if err != nil {
		return User{}, err
	}
	u.Additional = append([]uint32{u.GID}, member...)
	for _, g := range extra {
		gid, err := findGroup(g, group)
		if err != nil {
			return User{}, err
		}
		u.Additional = append(u.Additional, gid)
	}
	u.Additional = unique(u.Additional)
	if len(u.Additional) > maxGroups {
		return User{}, fmt.Errorf("more than %d groups", maxGroups)
	}
	return u, nil
}

// findUser looks name up in passwd and gives the entry's name, too.
func findUser(name, passwd string) (User, string, error) {
	uid, numeric, err := number(name)
	if err != nil {
		return User{}, "", err
	}
	numeric = numeric || name == ""
	for line := range strings.Lines(passwd) {
		// name:password:uid:gid:gecos:home:shell, passwd(5)
		f := strings.SplitN(strings.TrimSpace(line), ":", 7)
		if len(f) < 4 {
			continue
		}
		u, ok, err := number(f[2])
		g, ok2, err2 := number(f[3])
		if !ok || !ok2 || err != nil || err2 != nil {
			continue
		}
		if numeric && u == uid || !numeric && f[0] == name {
			home := "/"
			if len(f) > 5 && strings.HasPrefix(f[5], "/") {
				home = f[5]
			}
			return User{UID: u, GID: g, Home: home}, f[0], nil
		}
	}
	if !numeric {
		return User{}, "", &fault.Error{Op: "unable to find user " + name, Kind: fault.NotFound, Err: errors.New("no matching entries in passwd file")}
	}
	return User{UID: uid, Home: "/"}, "", nil
}

func findGroup(name, group string) (uint32, error) {
	gid, numeric, err := number(name)
	if err != nil || numeric {
		return gid, err
	}
	for line := range strings.Lines(group) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) < 3 || f[0] != name {
			continue
		}
		if g, ok, err := number(f[2]); ok && err == nil {
			return g, nil
		}
	}
	return 0, &fault.Error{Op: "unable to find group " + name, Kind: fault.NotFound, Err: errors.New("no matching entries in group file")}
}

// groupsOf are the groups that list user as a member.
func groupsOf(user, group string) ([]uint32, error) {
	var gids []uint32
	for line := range strings.Lines(group) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) < 4 || !strings.Contains(f[3], user) {
			continue
		}
		g, ok, err := number(f[2])
		if !ok || err != nil || !slices.Contains(strings.Split(f[3], ","), user) {
			continue
		}
		if gids = append(gids, g); len(gids) > maxGroups {
			return nil, fmt.Errorf("more than %d groups", maxGroups)
		}
	}
	return gids, nil
}

// number reads s as an id if it is all digits. Signs are refused: no name
// begins with one, and other tools take "+0" for 0.
func number(s string) (id uint32, ok bool, err error) {
	if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
		return 0, false, fmt.Errorf("%q begins with a sign", s)
	}
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil || v > maxID {
		return 0, false, fmt.Errorf("uids and gids must be in range 0-%d", maxID)
	}
	return uint32(v), true, nil
}

// unique keeps the first of each.
func unique(ids []uint32) []uint32 {
	seen := make(map[uint32]bool, len(ids))
	return slices.DeleteFunc(ids, func(id uint32) bool {
		was := seen[id]
		seen[id] = true
		return was
	})
}
