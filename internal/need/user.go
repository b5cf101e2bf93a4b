package need

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// UserID is the uid and gid of the ordinary user of AsUser. With Ranges it has
// the ids from FirstSubID on, 65536 of them.
const (
	UserID     = 20000
	FirstSubID = 200000
)

// AsUser is the line that runs args as an ordinary user, who has subordinate
// ids or not. The user lives in files that a private mount namespace lays over
// /etc, so that the host's own users stay as they are. AsUser makes its home
// below dir. It needs root, and the programs unshare and setpriv.
func AsUser(dir string, ranges bool, args ...string) ([]string, error) {
	home, etc := filepath.Join(dir, "user"), filepath.Join(dir, "user-etc")
	for _, d := range []struct {
		path  string
		owner int
	}{{etc, 0}, {home, UserID}, {home + "/run", UserID}} {
		if err := os.MkdirAll(d.path, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chown(d.path, d.owner, d.owner); err != nil {
			return nil, err
		}
	}
	id, mounts := strconv.Itoa(UserID), ""
	subids := ""
	if ranges {
		subids = "kistetest:" + strconv.Itoa(FirstSubID) + ":65536\n"
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nkistetest:x:" + id + ":" + id + ":a test:/tmp:/bin/sh\n",
		"group":  "root:x:0:\nkistetest:x:" + id + ":\n",
		"subuid": subids, "subgid": subids,
	} {
		file := filepath.Join(etc, name)
		// An earlier line may be running, and read them.
		if have, err := os.ReadFile(file); err != nil || string(have) != text {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				return nil, err
			}
		}
		mounts += "mount --bind '" + strings.ReplaceAll(file, "'", `'\''`) + "' /etc/" + name + " && "
	}
	line := mounts + "exec setpriv --reuid=" + id + " --regid=" + id + ` --clear-groups --inh-caps=-all -- env -u KISTE_LIB -u KISTE_RUN "HOME=$0" "XDG_RUNTIME_DIR=$0/run" "$@"`
	return append([]string{"unshare", "--mount", "sh", "-c", line, home}, args...), nil
}
