package namespace

import (
	"io"
	"os"
	"strconv"
	"strings"

	"kiste/fault"
)

// A Range is Count ids from First on, which a user may map.
type Range struct{ First, Count uint32 }

// maxSubordinate bounds what is read of /etc/subuid and /etc/subgid.
const maxSubordinate = 4 << 20

// Subordinate reads the ranges of user ids and group ids that /etc/subuid and
// /etc/subgid give to user, in the order of the files: see subuid(5). User is a
// name or a number; an entry by either counts. No entry is no error.
func Subordinate(user string) (uids, gids []Range, err error) {
	name, id := bothNames(user)
	for _, f := range []struct {
		path string
		to   *[]Range
	}{{"/etc/subuid", &uids}, {"/etc/subgid", &gids}} {
		text, err := readBounded(f.path, maxSubordinate)
		if err != nil && !os.IsNotExist(err) {
			return nil, nil, &fault.Error{Op: "read subordinate ids", On: f.path, Err: err}
		}
		*f.to = parseSubordinate(text, name, id)
	}
	return uids, gids, nil
}

// parseSubordinate takes the lines of one of the owners out of text. Lines
// that are not NAME:FIRST:COUNT are passed over, as newuidmap(1) does.
func parseSubordinate(text string, owners ...string) []Range {
	var all []Range
	for line := range strings.Lines(text) {
		parts := strings.Split(strings.TrimSpace(line), ":")
		if len(parts) != 3 || parts[0] == "" || len(all) == maxMaps {
			continue
		}
		first, err1 := strconv.ParseUint(parts[1], 10, 32)
		count, err2 := strconv.ParseUint(parts[2], 10, 32)
		if err1 != nil || err2 != nil || count == 0 || first+count > 1<<32-1 {
			continue
		}
		for _, o := range owners {
			if o == parts[0] {
				all = append(all, Range{uint32(first), uint32(count)})
				break
			}
		}
	}
	return all
}

// bothNames finds the name of a user given by number and the number of one
// given by name, in /etc/passwd alone; what is not there stays as given.
func bothNames(user string) (name, id string) {
	name, id = user, user
	text, _ := readBounded("/etc/passwd", maxSubordinate)
	for line := range strings.Lines(text) {
		parts := strings.SplitN(line, ":", 4)
		if len(parts) == 4 && (parts[0] == user || parts[2] == user) {
			return parts[0], parts[2]
		}
	}
	return name, id
}

// readBounded reads at most limit bytes of a file.
func readBounded(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return string(b), err
}

// RootMap maps root inside to id outside, and what ranges give to the ids
// that follow: what "podman unshare" shows. Ids that ranges have twice are
// taken once.
func RootMap(id uint32, ranges []Range) IDMaps {
	ms := IDMaps{{0, id, 1}}
	next := uint32(1)
	for _, r := range ranges {
		m := IDMap{next, r.First, r.Count}
		if len(ms) == maxMaps || append(ms[:len(ms):len(ms)], m).check() != nil {
			continue
		}
		ms = append(ms, m)
		next += r.Count
	}
	return ms
}
