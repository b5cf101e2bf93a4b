package engine

import (
	"os"
	"runtime"
	"strconv"

	"kiste/host"
	"kiste/kernel/namespace"
)

func hostArchitecture() string { return runtime.GOARCH }

// removeMapped removes a tree whose files belong to an ordinary user's
// subordinate ids: as root of a user namespace that has them.
func removeMapped(dir string) error {
	uids, gids := ownRanges()
	user, err := namespace.ParseKind("user")
	if err != nil {
		return err
	}
	code, err := namespace.Run(namespace.Options{
		New: []namespace.Kind{user}, UIDs: namespace.RootMap(uint32(os.Geteuid()), uids), GIDs: namespace.RootMap(uint32(os.Getegid()), gids),
		Args: []string{"/bin/rm", "-rf", "--one-file-system", dir},
	})
	if err == nil && code != 0 {
		return os.ErrPermission
	}
	return err
}

// ownRanges are this user's subordinate ids, if it may use them.
func ownRanges() (uids, gids []namespace.Range) {
	if !host.Subids.Have() {
		return nil, nil
	}
	uids, gids, err := namespace.Subordinate(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return nil, nil
	}
	return uids, gids
}
