package host

import (
	"os"
	"strconv"
	"strings"

	"kiste/internal/sys"
)

// Homes are the home directories of this host's people, as far as /etc/passwd knows them, of root and
// of whoever calls.
func Homes() []string {
	text, _ := sys.ReadFile("/etc/passwd", 1<<20)
	homes := homesIn(string(text))
	if own := os.Getenv("HOME"); own != "" {
		homes = append(homes, own)
	}
	return homes
}

// homesIn reads a passwd(5): the users below 1000, and nobody, are services.
func homesIn(passwd string) (homes []string) {
	for line := range strings.Lines(passwd) {
		field := strings.Split(strings.TrimSpace(line), ":")
		if len(field) < 7 {
			continue
		}
		if uid, err := strconv.ParseUint(field[2], 10, 32); err == nil && (uid == 0 || uid >= 1000 && uid != 65534) {
			homes = append(homes, field[5])
		}
	}
	return homes
}
