package oci

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// maxUsers bounds what is read of /etc/passwd.
const maxUsers = 16 << 20

// userName is the user's name in /etc/passwd, or "".
func userName(uid uint32) string {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxUsers))
	if err != nil {
		return ""
	}
	return nameIn(string(text), uid)
}

// nameIn finds a user by the third field of a line of passwd(5).
func nameIn(passwd string, uid uint32) string {
	wanted := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(passwd) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == wanted {
			return f[0]
		}
	}
	return ""
}
